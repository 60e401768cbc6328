"""The tenants of an installation."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db import rows
from shared.db.tables.tenants import workspaces
from shared.errors import AppError, ErrorCode
from shared.types import JSON


@dataclass(frozen=True, slots=True)
class Workspace:
    id: str
    slug: str
    name: str
    metadata: JSON
    version: int
    created_at: datetime
    updated_at: datetime


async def get(c: AsyncConnection, id: str) -> Workspace | None:
    return await _one(c, workspaces.c.id == id)


async def by_slug(c: AsyncConnection, slug: str) -> Workspace | None:
    return await _one(c, workspaces.c.slug == slug)


async def page(
    c: AsyncConnection, among: Collection[str] | None, *, after: rows.Place | None, limit: int
) -> list[Workspace]:
    """Newest first. `among`: of these ids only."""
    query = select(workspaces) if among is None else select(workspaces).where(workspaces.c.id.in_(among))
    found = await c.execute(rows.newest_first(query, workspaces, after, limit, time="created_at"))
    return [_workspace(row) for row in found]


async def add(c: AsyncConnection, new: Workspace) -> Workspace:
    """Idempotent by id. Raises AppError CONFLICT where another one has the slug."""
    try:
        async with c.begin_nested():
            await c.execute(insert(workspaces).values({name: getattr(new, name) for name in Workspace.__slots__}))
    except IntegrityError as error:
        if (known := await get(c, new.id)) is None:
            raise _slug_taken(new.slug) from error
        return known
    return new


async def change(c: AsyncConnection, id: str, values: Mapping[str, Any], *, expected: int | None) -> Workspace | None:
    """`expected`: the version that the caller has read. Raises AppError CONFLICT: it has another one by now, or another
    workspace has the slug."""
    this = workspaces.c.id == id
    now = await _version(c, id, expected)
    if now is None:
        return None
    changed = update(workspaces).where(this).values(**values, version=now + 1).returning(workspaces)
    try:
        return _workspace((await c.execute(changed)).one())
    except IntegrityError as error:
        raise _slug_taken(values["slug"]) from error


async def _version(c: AsyncConnection, id: str, expected: int | None) -> int | None:
    """It stays that of the workspace for this transaction. Raises AppError CONFLICT where another one is expected."""
    query = select(workspaces.c.version).where(workspaces.c.id == id).with_for_update()
    now: int | None = (await c.execute(query)).scalar_one_or_none()
    if now is not None and expected not in (None, now):
        raise rows.stale(expected, now)
    return now


async def remove(c: AsyncConnection, id: str, *, expected: int | None = None) -> bool:
    """With all rows of it. Raises AppError CONFLICT where it is of another version than expected."""
    await _version(c, id, expected)
    return (await c.execute(delete(workspaces).where(workspaces.c.id == id))).rowcount > 0


async def _one(c: AsyncConnection, where: ColumnElement[bool]) -> Workspace | None:
    row = (await c.execute(select(workspaces).where(where))).one_or_none()
    return None if row is None else _workspace(row)


def _workspace(row: Row[Any]) -> Workspace:
    return Workspace(**row._mapping)


def _slug_taken(slug: str) -> AppError:
    return AppError(ErrorCode.CONFLICT, f"Another workspace has the slug {slug!r}.")
