"""The retention job: what is older than archive.retention_days is deleted, a batch at a time, by one worker."""

import asyncio
import logging
import time

from modem.sweep import NameSource, share_of
from shared.db import history, retention
from shared.db.engine import Database
from shared.errors import AppError, ErrorCode
from shared.history.changes import Changes
from shared.redis import passes
from shared.threads.types import Run, Thread
from shared.workers.registry import WorkerRegistry

log = logging.getLogger("trunkline.archive")

EVERY_SECONDS = 600.0
AT_ONCE = 100
FIRST_SHARD = 0
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
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                if FIRST_SHARD in share_of(my_name.name, await self._registry.names()):
                    await self.tick(time.time())
            except AppError as error:
                log.warning("what is too old is deleted later: %s", error.detail)
            except Exception as error:
                log.warning("what is too old could not be deleted", exc_info=not passes(error))

    async def tick(self, now: float) -> None:
        """All that is too old at that time (seconds since 1970). Raises AppError UNAVAILABLE, RedisError."""
        async with self._database.begin() as c:
            await retention.forget_tombstones(c, before=now - TOMBSTONE_SECONDS)
        if self._days:
            before = now - self._days * 86400
            while await self._runs(before):
                pass
            while await self._threads(before):
                pass

    async def _runs(self, before: float) -> int:
        """How many were deleted."""
        async with self._database.connect() as c:
            found = [Run.parse(row.id, row.record) for row in await retention.old_runs(c, before=before, limit=AT_ONCE)]
        deleted = [run for run in found if await self._delete(run)]
        async with self._database.begin() as c:
            for thread_id in sorted({run.thread_id for run in deleted}):
                await retention.note_purge(c, thread_id)
        return len(deleted)

    async def _threads(self, before: float) -> int:
        async with self._database.connect() as c:
            ids = await retention.old_threads(c, before=before, limit=AT_ONCE)
            rows = await history.threads_of(c, ids)
        threads = [Thread.parse(row.id, {**row.record, "evicted_at": ""}) for row in rows]
        return sum([await self._delete(thread) for thread in threads])

    async def _delete(self, old: Run | Thread) -> bool:
        """False: something goes on there."""
        try:
            if isinstance(old, Run):
                await self._changes.delete_run(old)
            else:
                await self._changes.delete_thread(old)
        except AppError as error:
            if error.code is not ErrorCode.CONFLICT:
                raise
            return False
        return True
