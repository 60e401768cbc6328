"""Lists in pages: `limit` and an opaque `cursor` in, `items` and `next_cursor` out."""

from typing import Annotated

from fastapi import Query

from gateway.errors import invalid
from shared.errors import AppError, FieldError

Limit = Annotated[int, Query(ge=1, le=200, description="Items in one page.")]
Cursor = Annotated[str | None, Query(max_length=100, description="`next_cursor` of the page before.")]


def bad_cursor() -> AppError:
    return invalid([FieldError(place="query.cursor", detail="no cursor of this list: give a `next_cursor` as it was")])


def offset_of(cursor: str | None) -> int:
    """For lists that only grow at their end, whose cursor is a number. Raises AppError INVALID_REQUEST."""
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 15):
        raise bad_cursor()
    return int(cursor)
