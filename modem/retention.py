"""The retention job: what is older than archive.retention_days is deleted, a batch at a time, by one worker."""

import time

from modem.chores import is_first, now_and_then
from modem.sweep import NameSource
from shared.db import history, retention
from shared.db.engine import Database
from shared.errors import AppError, ErrorCode
from shared.history.changes import Changes
from shared.threads.types import Run, Thread
from shared.workers.registry import WorkerRegistry

EVERY_SECONDS = 600.0
AT_ONCE = 100
TOMBSTONE_SECONDS = 7 * 86400
"""For so long an archiver may be late with what it read before a deletion."""


class Retention:
    """`days`: 0 keeps everything that nobody deletes."""

    def __init__(self, days: int, database: Database, changes: Changes, registry: WorkerRegistry) -> None:
        self._days = days
        self._database = database
        self._changes = changes
        self._registry = registry

    async def run(self, my_name: NameSource) -> None:
        """Until cancelled, when this worker has the first shard."""

        async def chore() -> None:
            if await is_first(my_name.name, self._registry):
                await self.tick(time.time())

        await now_and_then(EVERY_SECONDS, chore, "the deletion of what is too old")

    async def tick(self, now: float) -> None:
        """All that is too old at that time (seconds since 1970). Raises AppError UNAVAILABLE, RedisError."""
        async with self._database.begin() as c:
            await retention.forget_tombstones(c, before=now - TOMBSTONE_SECONDS)
        if self._days:
            before = now - self._days * 86400
            await self._runs(before)
            await self._threads(before)

    async def _runs(self, before: float) -> None:
        after = None
        while True:
            async with self._database.connect() as c:
                rows = await retention.old_runs(c, before=before, after=after, limit=AT_ONCE)
            if not rows:
                return
            after = rows[-1][0]
            runs = [Run.parse(row.id, row.record) for _, row in rows]
            async with self._database.begin() as c:  # before they go: no reader skips them unawares
                for thread_id in sorted({run.thread_id for run in runs}):
                    await retention.note_purge(c, thread_id, [run.id for run in runs])
            for run in runs:
                await self._delete(run)

    async def _threads(self, before: float) -> None:
        after = ""
        while True:
            async with self._database.connect() as c:
                ids = await retention.old_threads(c, before=before, after=after, limit=AT_ONCE)
                rows = await history.threads_of(c, ids)
            if not ids:
                return
            after = ids[-1]
            for row in rows:
                await self._delete(Thread.parse(row.id, {**row.record, "evicted_at": ""}))

    async def _delete(self, old: Run | Thread) -> None:
        """Unless something goes on there, or somebody else has: another tick looks again."""
        try:
            if isinstance(old, Run):
                await self._changes.delete_run(old)
            else:
                await self._changes.delete_thread(old)
        except AppError as error:
            if error.code not in (ErrorCode.CONFLICT, ErrorCode.NOT_FOUND):
                raise
