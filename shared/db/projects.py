"""What a workspace is divided into."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db import rows
from shared.db.tables.tenants import keys, projects
from shared.errors import AppError, ErrorCode
from shared.types import JSON


@dataclass(frozen=True, slots=True)
class Project:
    id: str
    workspace: str
    name: str
    description: str
    metadata: JSON
    version: int
    created_at: datetime
    updated_at: datetime


async def get(c: AsyncConnection, workspace: str, id: str) -> Project | None:
    row = (await c.execute(select(projects).where(_is(workspace, id)))).one_or_none()
    return None if row is None else _project(row)


async def page(
    c: AsyncConnection, workspace: str, *, only: str | None, after: rows.Place | None, limit: int
) -> list[Project]:
    """Newest first. `only`: the one with this id, where the caller may see no other."""
    query = select(projects).where(projects.c.workspace == workspace)
    query = query if only is None else query.where(projects.c.id == only)
    found = await c.execute(rows.newest_first(query, projects, after, limit, time="created_at"))
    return [_project(row) for row in found]


async def add(c: AsyncConnection, new: Project) -> Project:
    """Idempotent by id. Raises AppError CONFLICT where another one has the name."""
    try:
        async with c.begin_nested():
            await c.execute(insert(projects).values({name: getattr(new, name) for name in Project.__slots__}))
    except IntegrityError as error:
        if (known := await get(c, new.workspace, new.id)) is None:
            raise _name_taken(new.name) from error
        return known
    return new


async def change(
    c: AsyncConnection, workspace: str, id: str, values: Mapping[str, Any], *, expected: int | None
) -> Project | None:
    """Raises AppError CONFLICT: another has the name, or it was changed meanwhile."""
    try:
        row = await rows.change(c, projects, _is(workspace, id), values, expected=expected)
    except IntegrityError as error:
        raise _name_taken(values["name"]) from error
    return None if row is None else _project(row)


async def remove(c: AsyncConnection, workspace: str, id: str) -> bool:
    """With its revoked keys. Raises AppError CONFLICT where something is still in it."""
    revoked = and_(keys.c.workspace == workspace, keys.c.project == id, keys.c.revoked_at.is_not(None))
    try:
        await c.execute(delete(keys).where(revoked))
        return (await c.execute(delete(projects).where(_is(workspace, id)))).rowcount > 0
    except IntegrityError as error:
        raise AppError(ErrorCode.CONFLICT, f"Something is still in project {id}: delete or move it first.") from error


def _is(workspace: str, id: str) -> ColumnElement[bool]:
    return and_(projects.c.workspace == workspace, projects.c.id == id)


def _project(row: Row[Any]) -> Project:
    return Project(**row._mapping)


def _name_taken(name: str) -> AppError:
    return AppError(ErrorCode.CONFLICT, f"Another project of the workspace has the name {name!r}.")
