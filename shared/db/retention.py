"""What of the archive is too old."""

from datetime import UTC, datetime

from sqlalchemy import delete, exists, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.history import archived_runs
from shared.db.tables.archive import events, runs, threads
from shared.threads.archiving import RecordCopy


async def old_runs(c: AsyncConnection, *, before: float, limit: int) -> list[RecordCopy]:
    """Of all workspaces: those that ended before a time (seconds since 1970), oldest first."""
    time = datetime.fromtimestamp(before, UTC)
    return await archived_runs(c, runs.c.ended_at < time, order=[runs.c.ended_at], limit=limit)


async def old_threads(c: AsyncConnection, *, before: float, limit: int) -> list[str]:
    """Of all workspaces: those without runs in which nothing has gone on since that time."""
    has_runs = exists().where(runs.c.thread_id == threads.c.id, runs.c.deleted_at.is_(None))
    time = datetime.fromtimestamp(before, UTC)
    query = select(threads.c.id).where(threads.c.last_ms < before * 1000, threads.c.created_at < time)
    query = query.where(threads.c.deleted_at.is_(None), threads.c.seq >= 0, ~has_runs)
    return list((await c.execute(query.order_by(threads.c.id).limit(limit))).scalars())


async def note_purge(c: AsyncConnection, thread_id: str) -> None:
    """Who reads the thread's events is told that those before the first one there are gone."""
    first = select(events.c.ms, events.c.n).where(events.c.thread_id == thread_id)
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
