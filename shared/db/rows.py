"""What the query modules have in common: places in lists that begin with the newest row, and changes of stale rows."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from sqlalchemy import ColumnElement, Select, Table, literal, tuple_

from shared.db.types import UtcTime
from shared.errors import AppError, ErrorCode

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Place:
    """Of a row in a list by (created_at, id). As text, a cursor."""

    created_at: datetime
    id: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for what is no cursor."""
        micros, separator, row_id = text.partition(".")
        if not (separator and micros.isascii() and micros.isdigit() and len(micros) <= 17 and row_id):
            raise ValueError(f"no place in a list: {text!r}")
        return cls(EPOCH + timedelta(microseconds=int(micros)), row_id)

    def __str__(self) -> str:
        return f"{(self.created_at - EPOCH) // timedelta(microseconds=1)}.{self.id}"


@dataclass(frozen=True, slots=True)
class Window:
    """A page of a list: what follows a place, or the first ones but `skip`."""

    limit: int
    after: Place | None = None
    skip: int = 0

    def of(self, query: Select[Any], table: Table) -> Select[Any]:
        """The query's rows in it, newest first."""
        ordered = query.order_by(table.c.created_at.desc(), table.c.id.desc()).limit(self.limit).offset(self.skip)
        return ordered.where(_older(table, self.after)) if self.after else ordered


def _older(table: Table, place: Place) -> ColumnElement[bool]:
    return tuple_(table.c.created_at, table.c.id) < tuple_(literal(place.created_at, UtcTime), literal(place.id))


def check_version(what: str, current: int, expected: int | None) -> None:
    """Raises AppError CONFLICT where somebody has changed it since it was read."""
    if expected is not None and expected != current:
        raise AppError(
            ErrorCode.CONFLICT,
            f"{what} has changed: it is at version {current}, and not {expected} any more. Read it again, and decide.",
        )
