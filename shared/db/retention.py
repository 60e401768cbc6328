"""What of the archive is too old."""

from collections.abc import Sequence
from datetime import UTC, datetime

import orjson
from sqlalchemy import delete, exists, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.rows import Place
from shared.db.tables.archive import events, runs, threads
from shared.threads.archiving import RecordCopy


async def old_runs(
    c: AsyncConnection, *, before: float, after: Place | None, limit: int
) -> list[tuple[Place, RecordCopy]]:
    """Of all workspaces: those that ended before a time (seconds since 1970), oldest first, behind a place."""
    place = tuple_(runs.c.ended_at, runs.c.id)
    query = select(runs.c.id, runs.c.ended_at, runs.c.record)
    query = query.where(runs.c.deleted_at.is_(None), runs.c.ended_at < datetime.fromtimestamp(before, UTC))
    if after is not None:
        query = query.where(place > tuple_(after.at, after.id, types=[runs.c.ended_at.type, runs.c.id.type]))
    found = await c.execute(query.order_by(runs.c.ended_at, runs.c.id).limit(limit))
    return [(Place(row.ended_at, row.id), RecordCopy(row.id, orjson.loads(row.record))) for row in found]


async def old_threads(c: AsyncConnection, *, before: float, after: str, limit: int) -> list[str]:
    """Of all workspaces: those without runs in which nothing has gone on since that time, behind an id."""
    has_runs = exists().where(runs.c.thread_id == threads.c.id, runs.c.deleted_at.is_(None))
    time = datetime.fromtimestamp(before, UTC)
    query = select(threads.c.id).where(threads.c.last_ms < before * 1000, threads.c.created_at < time)
    query = query.where(threads.c.deleted_at.is_(None), threads.c.seq >= 0, threads.c.id > after, ~has_runs)
    return list((await c.execute(query.order_by(threads.c.id).limit(limit))).scalars())


async def note_purge(c: AsyncConnection, thread_id: str, old: Sequence[str]) -> None:
    """Who reads the thread's events is told that those before the first one of other runs than these are gone."""
    first = select(events.c.ms, events.c.n).where(events.c.thread_id == thread_id, events.c.run_id.not_in(old))
    found = (await c.execute(first.order_by(events.c.ms, events.c.n).limit(1))).one_or_none()
    query = select(threads.c.last_ms, threads.c.last_n).where(threads.c.id == thread_id)
    end = (await c.execute(query)).one_or_none()
    if end is None:
        return
    ms, n = (found.ms - (found.n == 0), (found.n or 2**63) - 1) if found else (end.last_ms, end.last_n)
    await c.execute(update(threads).where(threads.c.id == thread_id).values(purged_ms=ms, purged_n=n))


async def forget_tombstones(c: AsyncConnection, *, before: float) -> None:
    """Rows of what was deleted before a time (seconds since 1970)."""
    time = datetime.fromtimestamp(before, UTC)
    for table in (runs, threads):
        await c.execute(delete(table).where(table.c.deleted_at < time))
