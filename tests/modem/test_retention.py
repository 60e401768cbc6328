"""The retention job over a real Valkey and real databases."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis
from sqlalchemy import update

from modem import retention
from shared.db import history
from shared.db.engine import Database
from shared.db.tables.archive import runs
from shared.errors import AppError, ErrorCode
from shared.keys import thread_keys_of
from shared.threads.types import Thread
from tests.support.archive import House

LONG_AGO = datetime.now(UTC) - timedelta(days=11)


async def left(house: House) -> set[str]:
    async with house.database.connect() as c:
        return {run.id for run in await history.archived_runs(c)}


@pytest.fixture
def house(client: Redis, database: Database, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    return House(client, database)


async def test_what_cannot_be_deleted_yet_keeps_nothing_younger(house: House) -> None:
    thread = await house.thread()
    old = [(await house.ended(thread.id)).id for _ in range(5)]
    for run_id in old[:3]:  # their parents are yet to be told of their ends
        await house.client.zadd(thread_keys_of(run_id).timers, {f"tell|{run_id}": 2**50})
    await house.archive()
    await house.age(LONG_AGO, old)
    await house.retention.tick(time.time())
    assert await left(house) == set(old[:3])


async def test_a_thread_that_cannot_be_deleted_yet_keeps_no_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = sorted([(await house.thread()).id for _ in range(5)])
    delete = house.changes.delete_thread

    async def busy(thread: Thread) -> None:
        if thread.id in ids[:3]:
            raise AppError(ErrorCode.CONFLICT, "A run goes on.")
        await delete(thread)

    monkeypatch.setattr(house.changes, "delete_thread", busy)
    await house.archive()
    await house.age(LONG_AGO, thread_ids=ids)
    await house.retention.tick(time.time())
    async with house.database.connect() as c:
        assert sorted(thread.id for thread in await history.threads_of(c, ids)) == ids[:3]


async def test_runs_of_the_same_instant_are_all_deleted(house: House) -> None:
    first, *_ = [await house.ended((await house.thread()).id) for _ in range(5)]
    await house.archive()
    async with house.database.begin() as c:
        await c.execute(update(runs).values(ended_at=LONG_AGO))
    await house.client.zadd(thread_keys_of(first.id).timers, {f"tell|{first.id}": 2**50})
    await house.retention.tick(time.time())
    assert await left(house) == {first.id}
