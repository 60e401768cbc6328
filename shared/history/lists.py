"""Lists of a workspace's threads and runs: what SQL has, under what Redis knows better.

A run stands in `keys.current_runs` from before it is submitted until it has ended and SQL has it, so a list shows what
its reader has just done: those runs come from Redis, all others from SQL, which has them as they ended.
"""

from datetime import datetime
from functools import partial
from typing import Any

from redis.asyncio import Redis

from shared import keys
from shared.db import history
from shared.db.engine import Database
from shared.db.history import RunFilter
from shared.db.rows import Place
from shared.history.reads import History
from shared.ids import thread_of
from shared.redis import patiently
from shared.tenant import Tenant
from shared.threads.store import ThreadStore
from shared.threads.types import Run, Thread

READ_AT_ONCE = 500


class Lists:
    """Raises AppError UNAVAILABLE while SQL is away."""

    def __init__(
        self, client: Redis, store: ThreadStore, database: Database, *, patience_seconds: float | None
    ) -> None:
        self._client = client
        self._store = store
        self._database = database
        self._history = History(store, database)
        self._patience_seconds = patience_seconds

    async def runs(
        self, tenant: Tenant, wanted: RunFilter, *, after: Place | None, limit: int, oldest_first: bool = False
    ) -> list[Run]:
        """In the order of their making, newest first unless said otherwise."""
        current = await self._current(tenant, wanted.thread_id)
        found = [
            run for run in current.values() if matches(run, wanted) and _behind(run, after, oldest_first=oldest_first)
        ]
        archived: list[Run] = []
        while len(archived) < limit:
            async with self._database.connect() as c:
                rows = await history.run_page(c, tenant, wanted, after=after, limit=limit, oldest_first=oldest_first)
            runs = [Run.parse(row.id, row.record) for row in rows]
            archived += [run for run in runs if run.id not in current]
            if len(rows) < limit:
                break
            after = place_of_run(runs[-1])
        return sorted([*found, *archived], key=_order, reverse=not oldest_first)[:limit]

    async def runs_of(self, thread: Thread, *, after: Place | None, limit: int) -> list[Run]:
        """A thread's, oldest first. SQL is asked only where some may be there alone."""
        if thread.was_evicted:
            wanted = RunFilter(thread_id=thread.id)
            return await self.runs(Tenant(thread.workspace), wanted, after=after, limit=limit, oldest_first=True)
        found: list[Run] = []
        ids = await self._store.run_ids(thread.id)
        for start in range(0, len(ids), READ_AT_ONCE):
            runs = await self._store.runs(ids[start : start + READ_AT_ONCE])
            found += [run for run in runs if _behind(run, after, oldest_first=True)]
            if len(found) >= limit:
                break
        return found[:limit]

    async def _current(self, tenant: Tenant, thread_id: str | None) -> dict[str, Run]:
        name = keys.current_runs(tenant.workspace)
        read: Any = partial(self._client.zrange, name, 0, -1)
        ids: list[str] = await patiently(read, self._patience_seconds)
        ids = ids if thread_id is None else [run_id for run_id in ids if thread_of(run_id) == thread_id]
        found: dict[str, Run] = {}
        for start in range(0, len(ids), READ_AT_ONCE):
            runs = await self._store.runs(ids[start : start + READ_AT_ONCE])
            found |= {run.id: run for run in runs if tenant.sees(run.workspace, run.project)}
        return found

    async def threads(
        self,
        tenant: Tenant,
        *,
        before: str | None,
        limit: int,
        status: str | None = None,
        project: str | None = None,
    ) -> tuple[list[Thread], str | None]:
        """Newest first, and `before` of the next page. A page may have fewer than there are. Both are the tenant's."""
        if tenant.project is None:
            tenant = Tenant(tenant.workspace, project)
        elif project not in (None, tenant.project):
            return [], None
        async with self._database.connect() as c:
            archived = await history.thread_ids(c, tenant, before=before, limit=limit + 1, status=status)
        live = await self._store.thread_ids(tenant, before=before, limit=limit + 1)
        ids = sorted({*archived, *live}, reverse=True)
        found = await self._history.threads(ids[:limit])
        kept = [thread for thread in found if status in (None, thread.status)]
        return kept, ids[limit - 1] if len(ids) > limit else None

    async def has_threads(self, tenant: Tenant) -> bool:
        found, following = await self.threads(tenant, before=None, limit=1)
        return bool(found or following)


def place_of_run(run: Run) -> Place:
    return Place(run.created_at, run.id)


def _order(run: Run) -> tuple[datetime, str]:
    return run.created_at, run.id


def _behind(run: Run, after: Place | None, *, oldest_first: bool) -> bool:
    if after is None:
        return True
    place = after.at, after.id
    return _order(run) > place if oldest_first else _order(run) < place


def matches(run: Run, wanted: RunFilter) -> bool:
    """Whether the list has it."""
    pairs = (
        (wanted.thread_id, run.thread_id),
        (wanted.project, run.project),
        (wanted.runnable_type, run.runnable_type),
        (wanted.runnable_id, run.runnable_id),
        (wanted.task_id, run.task_id),
        (wanted.status, run.status),
        (wanted.user_uuid, run.user_uuid),
    )
    if any(value is not None and value != has for value, has in pairs):
        return False
    in_time = (wanted.since is None or run.created_at >= wanted.since) and (
        wanted.until is None or run.created_at < wanted.until
    )
    return in_time and all(run.labels.get(name) == value for name, value in wanted.labels.items())
