import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from modem.sweep import SHORT_QUEUE, Sweeper, share_of
from shared import keys
from shared.config import WorkerSettings
from shared.ids import SHARDS, new_run_id, new_thread_id, shard_of, thread_of
from shared.keys import ThreadKeys
from shared.queue import QUEUE, RunQueue, celery_app
from shared.redis import connect
from shared.threads.store import ThreadStore
from shared.threads.types import NewRun, NewThread
from shared.types import RunStatus
from shared.workers.registry import WorkerRegistry

SETTINGS = WorkerSettings(lease_seconds=0.5, renew_seconds=0.1, ring_seconds=0.2, max_attempts=3)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url, timeout_seconds=5, max_connections=10)
    yield client
    await client.aclose()


@pytest.fixture
def held() -> set[str]:
    """What the sweeping worker holds."""
    return set()


@pytest.fixture
def store(client: Redis) -> ThreadStore:
    return ThreadStore(client, ring_seconds=SETTINGS.ring_seconds, patience_seconds=2)


@pytest.fixture
async def sweeper(
    client: Redis, store: ThreadStore, redis_url: str, held: set[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Sweeper]:
    async def take_from(worker: str, run_id: str) -> str | None:
        return (await store.expire(run_id, worker, max_attempts=3)).ring

    monkeypatch.setattr("modem.sweep.STRAY_SECONDS", 0.1)
    queue = RunQueue(celery_app(redis_url))
    yield Sweeper(
        SETTINGS,
        client=client,
        broker=client,
        registry=WorkerRegistry(client),
        queue=queue,
        running=lambda: held,
        take_from=take_from,
    )
    queue.close()


async def alive(client: Redis, name: str, seconds: float = 60) -> None:
    await client.zadd(keys.WORKERS, {name: (time.time() + seconds) * 1000})


async def submit(store: ThreadStore) -> str:
    thread = await store.create_thread(NewThread(new_thread_id(), "w"))
    run_id = new_run_id(thread.id)
    await store.submit(NewRun(run_id, "w", {"task": "x"}), queued={})
    return run_id


async def status(store: ThreadStore, run_id: str) -> RunStatus:
    run = await store.run(run_id)
    assert run is not None
    return run.status


async def sweep_until_quiet(sweeper: Sweeper, seconds: float = 1.2) -> None:
    """Ticks for a while: the first ones may only wait for a Redis that has just started."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        await sweeper.tick("me")
        await asyncio.sleep(0.05)


async def test_a_dead_workers_run_goes_back_to_pending_and_is_rung_for(
    client: Redis, store: ThreadStore, sweeper: Sweeper, held: set[str]
) -> None:
    await alive(client, "me")
    await alive(client, "other", 0.1)
    mine, theirs = await submit(store), await submit(store)
    held.add(mine)
    await store.claim(mine, "me", "1")
    await store.claim(theirs, "other", "2")
    await sweep_until_quiet(sweeper)
    assert await status(store, mine) is RunStatus.RUNNING
    assert await status(store, theirs) is RunStatus.PENDING
    assert await client.llen(QUEUE) > 0
    assert await client.hgetall(keys.live(shard_of(theirs.partition(".")[0]))) in ({}, {mine: "me"})


async def test_a_run_held_by_a_worker_that_never_was_alive_is_found_too(
    client: Redis, store: ThreadStore, sweeper: Sweeper
) -> None:
    await alive(client, "me")
    run_id = await submit(store)
    await store.claim(run_id, "a zombie that claimed after its burial", "1")
    await sweep_until_quiet(sweeper)
    assert await status(store, run_id) is RunStatus.PENDING


async def test_a_run_nobody_was_told_of_is_rung_for_but_not_while_the_queue_is_long(
    client: Redis, store: ThreadStore, sweeper: Sweeper
) -> None:
    await alive(client, "me")
    await submit(store)
    await client.rpush(QUEUE, *["x"] * (SHORT_QUEUE + 1))
    await sweep_until_quiet(sweeper, 0.8)
    assert await client.llen(QUEUE) == SHORT_QUEUE + 1
    await client.delete(QUEUE)
    await sweep_until_quiet(sweeper, 0.8)
    assert 1 <= await client.llen(QUEUE) <= 4


async def test_a_run_claimed_in_my_name_that_i_do_not_hold_goes_back_to_pending(
    client: Redis, store: ThreadStore, sweeper: Sweeper
) -> None:
    await alive(client, "me")
    run_id = await submit(store)
    await store.claim(run_id, "me", "delivered late, to a worker that no longer waits for it")
    await sweep_until_quiet(sweeper)
    assert await status(store, run_id) is RunStatus.PENDING


async def test_one_run_with_broken_data_keeps_no_other_waiting(
    client: Redis, store: ThreadStore, sweeper: Sweeper
) -> None:
    await alive(client, "me")
    run_ids = sorted([await submit(store) for _ in range(3)], key=lambda run_id: shard_of(thread_of(run_id)))
    for run_id in run_ids:
        await store.claim(run_id, "dead", "1")
    await client.delete(ThreadKeys(thread_of(run_ids[1])).stream)
    await client.set(ThreadKeys(thread_of(run_ids[1])).stream, "not a stream")
    await sweep_until_quiet(sweeper)
    assert await status(store, run_ids[0]) is RunStatus.PENDING
    assert await status(store, run_ids[2]) is RunStatus.PENDING


async def test_a_claimed_run_is_not_rung_for(
    client: Redis, store: ThreadStore, sweeper: Sweeper, held: set[str]
) -> None:
    await alive(client, "me")
    run_id = await submit(store)
    await store.claim(run_id, "me", "1")
    held.add(run_id)
    await sweep_until_quiet(sweeper, 0.8)
    assert await client.llen(QUEUE) == 0


async def test_after_redis_was_away_leases_get_time_to_be_renewed(
    client: Redis, store: ThreadStore, sweeper: Sweeper
) -> None:
    await sweep_until_quiet(sweeper)
    await alive(client, "me")
    await alive(client, "other", -10)
    sweeper._be_patient(0.4)
    await sweeper.tick("me")
    assert await client.zscore(keys.WORKERS, "other") is not None
    await sweep_until_quiet(sweeper, 0.6)
    assert await client.zscore(keys.WORKERS, "other") is None


def test_workers_share_all_shards_without_overlap_and_an_unknown_one_gets_none() -> None:
    names = ["a", "b", "c"]
    shares = [share_of(name, names) for name in names]
    assert sorted(shard for share in shares for shard in share) == list(range(SHARDS))
    assert share_of("d", names) == []
