"""The retention job over a real Valkey and real databases."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis
from sqlalchemy import update

from modem import retention
from modem.archive import Archiver
from modem.retention import Retention
from shared.config import ArchiveSettings, Settings
from shared.db import history
from shared.db.engine import Database
from shared.db.tables.archive import runs, threads
from shared.errors import AppError, ErrorCode
from shared.events.outside import Outside
from shared.history.changes import Changes
from shared.ids import SHARDS, new_run_id, new_thread_id
from shared.keys import thread_keys_of
from shared.threads.archiving import Archiving
from shared.threads.types import NewRun, NewThread, Thread
from shared.types import RunStatus
from shared.workers.registry import WorkerRegistry

LONG_AGO = datetime.now(UTC) - timedelta(days=11)


class House:
    def __init__(self, client: Redis, database: Database) -> None:
        async def ring(_: str | None) -> None: ...

        self.client, self.database = client, database
        self.out = Outside.over(client, Settings(), ring, patience_seconds=2, database=database)
        self.changes = Changes(client, self.out.store, database, patience_seconds=2)
        self.retention = Retention(10, database, self.changes, WorkerRegistry(client))
        archiving = Archiving(client, patience_seconds=2)
        payloads = self.out.store.payloads
        self.archiver = Archiver(ArchiveSettings(), database, payloads, archiving, WorkerRegistry(client))

    async def ended(self, thread_id: str) -> str:
        store, run_id = self.out.store, new_run_id(thread_id)
        await store.submit(NewRun(run_id, "w", {"task": "x"}), queued={})
        attempt = await store.claim(run_id, "w1", run_id)
        assert attempt
        await attempt.end(RunStatus.SUCCEEDED, {}, {})
        return run_id

    async def thread(self) -> str:
        return (await self.out.store.create_thread(NewThread(new_thread_id(), "w"))).id

    async def tick(self, *old_runs: str, old_threads: Sequence[str] = ()) -> None:
        """Once the archive has all, and says of these that they are too old; the runs in the order of their age."""
        await self.archiver.tick(range(SHARDS))
        async with self.database.begin() as c:
            for place, run_id in enumerate(old_runs):
                ended_at = LONG_AGO + timedelta(seconds=place)
                await c.execute(update(runs).where(runs.c.id == run_id).values(ended_at=ended_at))
            silent = {"created_at": LONG_AGO, "last_ms": int(LONG_AGO.timestamp() * 1000)}
            await c.execute(update(threads).where(threads.c.id.in_(old_threads)).values(**silent))
        await self.retention.tick(time.time())

    async def left(self) -> set[str]:
        async with self.database.connect() as c:
            return {run.id for run in await history.archived_runs(c)}


@pytest.fixture
def house(client: Redis, database: Database, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    return House(client, database)


async def test_what_cannot_be_deleted_yet_keeps_nothing_younger(house: House) -> None:
    thread_id = await house.thread()
    old = [await house.ended(thread_id) for _ in range(5)]
    for run_id in old[:3]:  # their parents are yet to be told of their ends
        await house.client.zadd(thread_keys_of(run_id).timers, {f"tell|{run_id}": 2**50})
    await house.tick(*old)
    assert await house.left() == set(old[:3])


async def test_a_thread_that_cannot_be_deleted_yet_keeps_no_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = sorted([await house.thread() for _ in range(5)])
    delete = house.changes.delete_thread

    async def busy(thread: Thread) -> None:
        if thread.id in ids[:3]:
            raise AppError(ErrorCode.CONFLICT, "A run goes on.")
        await delete(thread)

    monkeypatch.setattr(house.changes, "delete_thread", busy)
    await house.tick(old_threads=ids)
    async with house.database.connect() as c:
        assert [thread.id for thread in await history.threads_of(c, ids)] == ids[:3]


async def test_runs_of_the_same_instant_are_all_deleted(house: House) -> None:
    first, *_ = [await house.ended(await house.thread()) for _ in range(5)]
    await house.archiver.tick(range(SHARDS))
    async with house.database.begin() as c:
        await c.execute(update(runs).values(ended_at=LONG_AGO))
    await house.client.zadd(thread_keys_of(first).timers, {f"tell|{first}": 2**50})
    await house.tick()
    assert await house.left() == {first}
