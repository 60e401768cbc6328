"""Contexts: JSON documents of agents, each with its versions. A version never changes; going back makes a new one."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.agents import Agent
from shared.db.rows import stale
from shared.db.tables.agents import context_versions, contexts
from shared.errors import AppError, ErrorCode
from shared.ids import new_id
from shared.types import JSON


@dataclass(frozen=True, slots=True)
class ContextVersion:
    """`restored`: the older version that it is equal to, of one that took it up again."""

    context: str
    name: str
    number: int
    data: JSON
    note: str
    restored: int | None
    created_at: datetime
    created_by: str | None
    request: str


@dataclass(frozen=True, slots=True)
class NewVersion:
    """`request` names the request for it: the same again, when it is sent again."""

    request: str
    data: JSON
    note: str = ""
    by: str | None = None
    """The key that writes it."""
    restored: int | None = None


async def current(c: AsyncConnection, agent: Agent, name: str) -> ContextVersion | None:
    query = _versions(agent, name).where(context_versions.c.number == contexts.c.version)
    row = (await c.execute(query)).mappings().one_or_none()
    return None if row is None else _version(row)


def unwritten(agent: Agent, name: str) -> ContextVersion:
    """What a context is before its first version."""
    return ContextVersion("", name, 0, {}, "", None, agent.created_at, None, "")


async def write(
    c: AsyncConnection, agent: Agent, name: str, new: NewVersion, *, keep: int, expected: int | None = None
) -> ContextVersion:
    """A new version, the first one of a new context where there is none; only the newest `keep` remain.

    `agent` was read in this transaction, to be changed: writers of its contexts come one after another. `expected`: the
    version that it follows, 0 for none. Idempotent by `new.request`. Raises AppError CONFLICT where the context is at
    another version.
    """
    mine = _versions(agent, name).where(context_versions.c.request == new.request)
    if row := (await c.execute(mine)).mappings().one_or_none():
        return _version(row)
    made = await _append(c, agent, name, new, expected)
    forgotten = context_versions.delete().where(
        context_versions.c.workspace == agent.workspace,
        context_versions.c.context == made.context,
        context_versions.c.number <= made.number - keep,
    )
    await c.execute(forgotten)
    return made


async def _append(c: AsyncConnection, agent: Agent, name: str, new: NewVersion, expected: int | None) -> ContextVersion:
    now = datetime.now(UTC)
    known = (await c.execute(select(contexts).where(_is(agent, name)))).mappings().one_or_none()
    now_at = known["version"] if known else 0
    if expected not in (None, now_at):
        raise stale(expected, now_at)
    context_id, number = known["id"] if known else new_id(), now_at + 1
    if known is None:
        own = {"id": context_id, "workspace": agent.workspace, "agent": agent.id, "name": name}
        await c.execute(contexts.insert().values(**own, version=1, created_at=now, updated_at=now))
    else:
        changed = contexts.update().where(contexts.c.workspace == agent.workspace, contexts.c.id == context_id)
        await c.execute(changed.values(version=number, updated_at=now))
    written = ContextVersion(context_id, name, number, new.data, new.note, new.restored, now, new.by, new.request)
    row = {key: value for key, value in asdict(written).items() if key != "name"}
    await c.execute(context_versions.insert().values(workspace=agent.workspace, **row))
    return written


async def version(c: AsyncConnection, agent: Agent, name: str, number: int) -> ContextVersion:
    """Raises AppError NOT_FOUND, and says which there are."""
    of_context = _versions(agent, name)
    row = (await c.execute(of_context.where(context_versions.c.number == number))).mappings().one_or_none()
    if row is not None:
        return _version(row)
    kept = of_context.subquery()
    first, last = (await c.execute(select(func.min(kept.c.number), func.max(kept.c.number)))).one()
    there = "it has none yet" if last is None else f"versions {first} to {last} are kept"
    raise AppError(ErrorCode.NOT_FOUND, f"Context {name!r} has no version {number}: {there}.")


async def versions(
    c: AsyncConnection, agent: Agent, name: str, *, before: int | None, limit: int
) -> list[ContextVersion]:
    """Newest first, those older than `before`."""
    query = _versions(agent, name).order_by(context_versions.c.number.desc()).limit(limit)
    query = query if before is None else query.where(context_versions.c.number < before)
    return [_version(row) for row in (await c.execute(query)).mappings()]


def _is(agent: Agent, name: str) -> ColumnElement[bool]:
    return and_(contexts.c.workspace == agent.workspace, contexts.c.agent == agent.id, contexts.c.name == name)


def _versions(agent: Agent, name: str) -> Select[Any]:
    same = and_(context_versions.c.workspace == contexts.c.workspace, context_versions.c.context == contexts.c.id)
    return select(context_versions, contexts.c.name).join(contexts, same).where(_is(agent, name))


def _version(row: RowMapping) -> ContextVersion:
    return ContextVersion(**{name: value for name, value in row.items() if name != "workspace"})
