"""API keys: who may come in, and what for. Of the key itself only its digest is kept."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, bindparam, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db import rows
from shared.db.tables.tenants import keys
from shared.types import Scope

AT_ONCE = 1000
"""Ids in one question."""


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    workspace: str
    project: str | None
    """The only one that it sees."""
    name: str
    prefix: str
    scopes: frozenset[Scope]
    created_by: str | None
    """The id of the key that made it."""
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


_COLUMNS = [keys.c[name] for name in Key.__slots__]


async def get(c: AsyncConnection, workspace: str, id: str) -> Key | None:
    return await _one(c, _is(workspace, id))


async def by_digest(c: AsyncConnection, digest: str) -> Key | None:
    """Of any workspace: this is how a caller's workspace is found."""
    return await _one(c, keys.c.digest == digest)


async def page(
    c: AsyncConnection, workspace: str, *, project: str | None, after: rows.Place | None, limit: int
) -> list[Key]:
    """Newest first, revoked ones too. `project`: of this one only."""
    query = select(*_COLUMNS).where(keys.c.workspace == workspace)
    query = query if project is None else query.where(keys.c.project == project)
    return [_key(row) for row in await c.execute(rows.newest_first(query, keys, after, limit, time="created_at"))]


async def add(c: AsyncConnection, new: Key, digest: str) -> Key:
    """Idempotent by id: `new`, or the key that was made before."""
    values = {name: getattr(new, name) for name in Key.__slots__}
    try:
        async with c.begin_nested():
            await c.execute(insert(keys).values(values | {"scopes": sorted(new.scopes), "digest": digest}))
    except IntegrityError:
        if (known := await get(c, new.workspace, new.id)) is None:
            raise
        return known
    return new


async def revoke(c: AsyncConnection, workspace: str, id: str, at: datetime) -> None:
    """A key that is revoked already stays as it is."""
    await c.execute(update(keys).where(_is(workspace, id), keys.c.revoked_at.is_(None)).values(revoked_at=at))


async def revoked_among(c: AsyncConnection, ids: Iterable[str]) -> set[str]:
    """Of any workspaces."""
    asked, found = sorted(ids), set[str]()
    for start in range(0, len(asked), AT_ONCE):
        some = keys.c.id.in_(asked[start : start + AT_ONCE])
        found.update((await c.execute(select(keys.c.id).where(some, keys.c.revoked_at.is_not(None)))).scalars())
    return found


async def of_workspace(c: AsyncConnection, workspace: str) -> list[str]:
    """The ids of those that are not revoked."""
    query = select(keys.c.id).where(keys.c.workspace == workspace, keys.c.revoked_at.is_(None))
    return list((await c.execute(query)).scalars())


async def used(c: AsyncConnection, last_used: Mapping[str, datetime]) -> None:
    """Notes for each key id when it was used last; what is known of a later use stays."""
    at = bindparam("at", type_=keys.c.last_used_at.type)
    later = or_(keys.c.last_used_at.is_(None), keys.c.last_used_at < at)
    statement = update(keys).where(keys.c.id == bindparam("key"), later).values(last_used_at=at)
    await c.execute(statement, [{"key": key, "at": when} for key, when in sorted(last_used.items())])


async def _one(c: AsyncConnection, where: ColumnElement[bool]) -> Key | None:
    row = (await c.execute(select(*_COLUMNS).where(where))).one_or_none()
    return None if row is None else _key(row)


def _is(workspace: str, id: str) -> ColumnElement[bool]:
    return and_(keys.c.workspace == workspace, keys.c.id == id)


def _key(row: Row[Any]) -> Key:
    # A scope that only a newer release knows is none here.
    known = frozenset(scope for scope in Scope if scope in row.scopes)
    return Key(**{**row._mapping, "scopes": known})
