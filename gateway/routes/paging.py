"""Lists: what they may be asked for, and pages: `limit` and an opaque `cursor` in, `items` and `next_cursor` out."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

from fastapi import Depends, Query
from pydantic import AfterValidator, AwareDatetime, Field

from gateway.errors import invalid
from gateway.patterns import EVENT_ID, looks_like
from gateway.routes.answers import Page
from shared.db.rows import Place
from shared.errors import AppError, FieldError
from shared.ids import THREAD_ID

Row = TypeVar("Row")
Item = TypeVar("Item")

_PLACE = re.compile(r"([0-9]{1,17})-([A-Za-z0-9_.-]{1,64})")
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(9000, 1, 1, tzinfo=UTC)


def _whole_text(text: str) -> str:
    if "\0" in text:
        raise ValueError("should not contain the character NUL")
    return text


def _storable(time: datetime) -> datetime:
    if not _BEGINNING <= time <= _LAST:
        raise ValueError("should be a time from 1970 to 9000")
    return time


Word = Annotated[str, Field(max_length=200), AfterValidator(_whole_text), looks_like(r"^[^\x00]*$")]
"""What a column is to be."""
Time = Annotated[AwareDatetime, AfterValidator(_storable)]

Skip = Annotated[int, Query(ge=0, le=100_000, description="Items to leave out, in place of a `cursor`.")]
Limit = Annotated[int, Query(ge=1, le=200, description="Items in one page.")]
NEXT = Query(description="`next_cursor` of the page before.")
_Token = Annotated[str, Field(max_length=100)]

Cursor = Annotated[Annotated[_Token, looks_like(rf"^{_PLACE.pattern}$")] | None, NEXT]
"""Of rows, newest first. The others: of what is numbered, of threads, of events."""
NumberCursor = Annotated[Annotated[_Token, looks_like("^[0-9]{1,9}$")] | None, NEXT]
ThreadCursor = Annotated[Annotated[_Token, looks_like(rf"^{THREAD_ID.pattern}$")] | None, NEXT]
ToolCursor = Annotated[Annotated[_Token, looks_like(rf"^([0-9]{{1,9}}|{_PLACE.pattern})$")] | None, NEXT]
EventCursor = Annotated[Annotated[_Token, looks_like(EVENT_ID)] | None, NEXT]


def in_project(
    project_id: Annotated[Word | None, Query(description="Only those of this project.")] = None,
    projectId: Annotated[Word | None, Query(include_in_schema=False)] = None,
) -> str | None:
    """As source design 003 names it, too."""
    return project_id or projectId


InProject = Annotated[str | None, Depends(in_project)]


def bad_cursor() -> AppError:
    return invalid([FieldError(place="query.cursor", detail="no cursor of this list: give a `next_cursor` as it was")])


def offset_of(cursor: str | None) -> int:
    """For lists whose cursor is a number. Raises AppError INVALID_REQUEST."""
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 9):
        raise bad_cursor()
    return int(cursor)


def place_of(cursor: str | None) -> Place | None:
    """For lists of rows, newest first. Raises AppError INVALID_REQUEST."""
    if cursor is None:
        return None
    if (match := _PLACE.fullmatch(cursor)) is None:
        raise bad_cursor()
    return Place(_BEGINNING + timedelta(microseconds=int(match[1])), match[2])


def page_of(
    rows: Sequence[Row], limit: int, answer: Callable[[Row], Item], place: Callable[[Row], Place]
) -> Page[Item]:
    """Of one row more than `limit`, where there are more."""
    last = place(rows[limit - 1]) if len(rows) > limit else None
    cursor = f"{(last.at - _BEGINNING) // timedelta(microseconds=1)}-{last.id}" if last else None
    return Page(items=[answer(row) for row in rows[:limit]], next_cursor=cursor)
