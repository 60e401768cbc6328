"""The archiver: what changed in Redis goes to SQL, and threads that rest leave Redis. Each worker has its shards.

All it does may be done twice or by two workers at once: rows never go back, the store's scripts decide what may leave.
While SQL is away it waits, longer and longer; runs know nothing of it, and what changed stays listed.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from modem.chores import is_away
from modem.metrics import ChoreMetrics
from modem.sweep import NameSource, share_of
from shared.config import ArchiveSettings
from shared.db import archive
from shared.db.engine import Database
from shared.errors import AppError
from shared.payloads.blobs import Ref
from shared.payloads.payloads import Payloads
from shared.redis import passes
from shared.threads.archiving import Archiving, Chunk, Marks, RecordCopy, Resting, marked_for_deletion
from shared.workers.registry import WorkerRegistry

log = logging.getLogger("trunkline.archive")

THREADS_AT_ONCE = 20
"""Read together and written in one transaction."""
EVICTED_AT_ONCE = 50
LONGEST_PAUSE = 15.0
"""Seconds between tries while SQL is away."""
SET_ASIDE_PASSES = 100
"""For so many passes a thread that cannot be archived (its data are broken) keeps no other waiting."""


class Archiver:
    """`archiving` has the threads, `payloads` their large values. `metrics`: where it tells when it was done."""

    def __init__(
        self,
        settings: ArchiveSettings,
        database: Database,
        payloads: Payloads,
        archiving: Archiving,
        registry: WorkerRegistry,
        *,
        metrics: ChoreMetrics | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._payloads = payloads
        self._archiving = archiving
        self._registry = registry
        self._metrics = metrics
        self._set_aside: dict[str, int] = {}

    async def run(self, my_name: NameSource) -> None:
        """Archives until cancelled."""
        pause = self._settings.every_seconds
        while True:
            try:
                shards = share_of(my_name.name, await self._registry.names())
                await self.tick(shards)
                pause = self._settings.every_seconds
            except AppError as error:
                pause = min(pause * 2, LONGEST_PAUSE)
                log.warning("archiving waits %.0f s: %s", pause, error.detail)
            except Exception as error:
                log.warning("could not archive: %s", error, exc_info=not passes(error))
            await asyncio.sleep(pause)

    async def tick(self, shards: Sequence[int]) -> None:
        """All that is dirty now, then what may leave. Raises AppError UNAVAILABLE, RedisError."""
        self._set_aside = {thread_id: left - 1 for thread_id, left in self._set_aside.items() if left > 1}
        async for marks in self._archiving.dirty(shards, THREADS_AT_ONCE):
            await self._archive({i: marked for i, marked in marks.items() if i not in self._set_aside})
        if self._metrics and shards and not self._set_aside:
            self._metrics.archive_done.set_to_current_time()
        while idle := await self._archiving.idle(
            shards, seconds=self._settings.evict_after_seconds, limit=EVICTED_AT_ONCE
        ):
            if not any([await self._evict(thread_id) for thread_id in idle]):
                break

    async def _evict(self, thread_id: str) -> bool:
        """As `evict`. A thread that cannot leave (its data are broken) keeps no other in Redis."""
        try:
            return await self.evict(thread_id)
        except Exception as error:
            if is_away(error):
                raise
            log.exception("thread %s cannot leave Redis", thread_id)
            await self._archiving.put_off([thread_id])
            return False

    async def _archive(self, marks: Mapping[str, Marks]) -> None:
        """Together; where that fails, one by one, so that a broken thread is the only one that stays behind."""
        try:
            await self._copy(marks)
        except Exception as error:
            if is_away(error):
                raise
            if len(marks) == 1:
                [thread_id] = marks
                self._set_aside[thread_id] = SET_ASIDE_PASSES
                log.exception("thread %s cannot be archived", thread_id)
                return
            for thread_id, marked in marks.items():
                await self._archive({thread_id: marked})

    async def _copy(self, marks: Mapping[str, Marks]) -> None:
        gone = [member for marked in marks.values() for member in marked_for_deletion(marked)]
        async with self._database.connect() as c:
            done = await archive.steps_done(c, [member for marked in marks.values() for member in marked])
        if gone:
            async with self._database.begin() as c:
                await archive.forget(c, gone)
        last_ids: dict[str, str] = {}
        runs: list[RecordCopy] = []
        async for chunk in self._archiving.copies(marks, done):
            last_ids |= {thread.id: thread.record["last_id"] for thread in chunk.threads}
            runs += [run for run in chunk.runs if run.ended]
            await self._write(chunk)
        keep_ms = int(self._settings.keep_events_seconds * 1000)
        await self._archiving.no_longer_current(runs)
        for thread_id, marked in marks.items():
            await self._archiving.archived(thread_id, marked, last_ids.get(thread_id, "0-0"), keep_ms=keep_ms)

    async def _write(self, chunk: Chunk) -> None:
        async with self._database.begin() as c:
            await archive.write(c, chunk)

    async def evict(self, thread_id: str) -> bool:
        """Whether the thread left Redis. Raises AppError UNAVAILABLE, RedisError."""
        resting = await self._archiving.resting(thread_id)
        blobs: list[Ref] = []
        if resting.record and "head" not in resting.record:
            blobs = [ref for ref in await self._archiving.refs(resting.runs) if ref.store == "redis"]
            if not await self._settle(resting, blobs):
                blobs, resting = [], Resting(thread_id, {}, [], [], [])
        return await self._archiving.evict(resting, blobs)

    async def _settle(self, resting: Resting, blobs: Sequence[Ref]) -> bool:
        """Copies what only Redis has. Whether the thread is as it was read, and all of it there."""
        async with self._database.begin() as c:
            if not await archive.settle(c, resting):
                return False
            known = await archive.kept_blobs(c, resting.thread_id)
        for ref in {ref.name: ref for ref in blobs if ref.name not in known}.values():
            try:
                data = await self._payloads.get(ref)
            except AppError as error:
                log.warning("thread %s stays in Redis: %s", resting.thread_id, error.detail)
                return False
            async with self._database.begin() as c:
                await archive.keep_blob(c, resting.thread_id, ref.name, data)
        return True
