"""The store, the archive and what moves threads between them, over a real Valkey and a real database."""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from redis.asyncio import Redis
from sqlalchemy import update

from modem.archive import Archiver
from modem.retention import Retention
from shared.config import ArchiveSettings, Settings
from shared.db.engine import Database
from shared.db.tables.archive import runs, threads
from shared.events.outside import Outside
from shared.history.changes import Changes
from shared.history.reads import History
from shared.ids import SHARDS, new_run_id, new_thread_id
from shared.threads.archiving import Archiving
from shared.threads.attempt import Change
from shared.threads.steps import StepRecord
from shared.threads.types import NewRun, NewThread, Run, Thread
from shared.types import RunStatus, StepStatus
from shared.workers.registry import WorkerRegistry

ALL = range(SHARDS)
AT_ONCE: dict[str, Any] = {
    "every_seconds": 1,
    "keep_events_seconds": 0.0,
    "evict_after_seconds": -1,
    "retention_days": 0,
}
"""Nothing stays in Redis that need not."""


class House:
    """`archiver` only copies; `evictor` also lets go what rests."""

    def __init__(self, client: Redis, database: Database) -> None:
        async def ring(_: str | None) -> None: ...

        self.client, self.database = client, database
        self.out = Outside.over(client, Settings(), ring, patience_seconds=2, database=database)
        self.store = self.out.store
        self.changes = Changes(client, self.store, database, patience_seconds=2)
        self.history = History(self.store, database)
        self.retention = Retention(10, database, self.changes, WorkerRegistry(client))
        archiving = Archiving(client, patience_seconds=2)
        self.archiver, self.evictor = (
            Archiver(how, database, self.store.payloads, archiving, WorkerRegistry(client))
            for how in (ArchiveSettings(), ArchiveSettings.model_construct(**AT_ONCE))
        )

    async def thread(self) -> Thread:
        return await self.store.create_thread(NewThread(new_thread_id(), "w"))

    async def ended(self, thread_id: str, size: int = 1, message: str | None = None) -> Run:
        """A run with one step, whose result has so many bytes, and that says something."""
        run_id = new_run_id(thread_id)
        await self.store.submit(NewRun(run_id, "w", {"task": "x"}), queued={})
        attempt = await self.store.claim(run_id, "w1", secrets.token_hex(4))
        assert attempt
        step = StepRecord("k1", 1, "k", "t", StepStatus.SUCCEEDED, "h", result="r" * size)
        await attempt.commit(Change([step], [{"role": "assistant", "content": message}] if message else []))
        await attempt.end(RunStatus.SUCCEEDED, {}, {})
        run = await self.store.run(run_id)
        assert run
        return run

    async def archive(self) -> None:
        await self.archiver.tick(ALL)

    async def evict(self) -> None:
        await self.evictor.tick(ALL)
        assert await self.keys() == []

    async def keys(self) -> list[str]:
        """Of threads."""
        return [key async for key in self.client.scan_iter("thread:*")]

    async def age(self, since: datetime, run_ids: Sequence[str] = (), thread_ids: Sequence[str] = ()) -> None:
        """The archive says that they ended then, the runs a second apart; that nothing went on in the threads."""
        async with self.database.begin() as c:
            for place, run_id in enumerate(run_ids):
                ended_at = since + timedelta(seconds=place)
                await c.execute(update(runs).where(runs.c.id == run_id).values(ended_at=ended_at))
            silent = {"created_at": since, "last_ms": int(since.timestamp() * 1000)}
            await c.execute(update(threads).where(threads.c.id.in_(thread_ids)).values(**silent))
