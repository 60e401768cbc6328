"""What was done, and what was refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db import rows
from shared.db.tables.tenants import audit
from shared.types import JSON

Outcome = Literal["done", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Entry:
    id: str
    workspace: str
    at: datetime
    actor: str | None
    """The id of the key; None: nobody was known."""
    user_uuid: str | None
    action: str
    """The operation's id."""
    resource_type: str | None
    resource_id: str | None
    outcome: Outcome
    request_id: str | None
    address: str | None
    detail: JSON | None


@dataclass(frozen=True, slots=True)
class Filter:
    """What is None does not matter."""

    actor: str | None = None
    action: str | None = None
    outcome: Outcome | None = None
    resource_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def add(c: AsyncConnection, entries: Sequence[Entry]) -> None:
    """Idempotent by their ids."""
    unless_there = rows.insert(c, audit).on_conflict_do_nothing(index_elements=[audit.c.id])
    await c.execute(unless_there, [{name: getattr(entry, name) for name in Entry.__slots__} for entry in entries])


async def page(
    c: AsyncConnection, workspace: str, wanted: Filter, *, after: rows.Place | None, limit: int
) -> list[Entry]:
    """Newest first."""
    query = select(audit).where(audit.c.workspace == workspace)
    for name in ("actor", "action", "outcome", "resource_id"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(audit.c[name] == value)
    if wanted.since is not None:
        query = query.where(audit.c.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(audit.c.at < wanted.until)
    return [_entry(row) for row in await c.execute(rows.newest_first(query, audit, after, limit, time="at"))]


async def forget(c: AsyncConnection, before: datetime) -> None:
    await c.execute(delete(audit).where(audit.c.at < before))


def _entry(row: Row[Any]) -> Entry:
    return Entry(**row._mapping)
