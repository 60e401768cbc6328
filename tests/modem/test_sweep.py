import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from modem.metrics import ChoreMetrics
from modem.sweep import SHORT_QUEUE, Sweeper, share_of
from shared import keys
from shared.config import WorkerSettings
from shared.ids import SHARDS, new_run_id, new_thread_id, shard_of, thread_of
from shared.keys import ThreadKeys
from shared.queue import QUEUE, RunQueue, celery_app
from shared.redis import connect
from shared.tasks import cancel
from shared.threads.store import ThreadStore
from shared.threads.types import NewRun, NewThread
from shared.types import RunStatus
from shared.workers.registry import WorkerRegistry
from tests.support.stack import until
from tests.support.valkey import Valkey

BOUND_SECONDS = 10
SETTINGS = WorkerSettings(lease_seconds=0.5, renew_seconds=0.1, sweep_seconds=0.01, ring_seconds=0.2, max_attempts=3)


@pytest.fixture
def held() -> set[str]:
    """What the sweeping worker holds."""
    return set()


@pytest.fixture
def store(client: Redis) -> ThreadStore:
    return ThreadStore(client, ring_seconds=SETTINGS.ring_seconds, patience_seconds=2)


@pytest.fixture
def queue(redis_url: str, client: Redis) -> Iterator[RunQueue]:
    queue = RunQueue(celery_app(redis_url), client)
    yield queue
    queue.close()


@pytest.fixture
def sweeper(
    client: Redis, store: ThreadStore, queue: RunQueue, held: set[str], monkeypatch: pytest.MonkeyPatch
) -> Sweeper:
    monkeypatch.setattr("modem.sweep.STRAY_SECONDS", 0)
    return a_sweeper(SETTINGS, client, store, queue, held)


def a_sweeper(settings: WorkerSettings, client: Redis, store: ThreadStore, queue: RunQueue, held: set[str]) -> Sweeper:
    async def take_from(worker: str, run_id: str) -> str | None:
        return (await store.expire(run_id, worker, max_attempts=3)).ring

    return Sweeper(
        settings,
        client=client,
        broker=client,
        registry=WorkerRegistry(client),
        queue=queue,
        running=lambda: held,
        take_from=take_from,
        metrics=ChoreMetrics(CollectorRegistry()),
    )


@dataclass(frozen=True)
class Named:
    name: str


async def alive(client: Redis, name: str, seconds: float = 60) -> None:
    await client.zadd(keys.WORKERS, {name: (time.time() + seconds) * 1000})


async def is_registered(client: Redis, name: str) -> bool:
    return await client.zscore(keys.WORKERS, name) is not None


async def submit(store: ThreadStore) -> str:
    thread = await store.create_thread(NewThread(new_thread_id(), "w"))
    run_id = new_run_id(thread.id)
    await store.submit(NewRun(run_id, "w", {"task": "x"}), queued={})
    return run_id


async def status(store: ThreadStore, run_id: str) -> RunStatus:
    run = await store.run(run_id)
    assert run is not None
    return run.status


async def sweep(client: Redis, sweeper: Sweeper) -> None:
    """One whole sweep, which buries a dead worker. Ticks before it only wait for a Redis that has just started."""
    await alive(client, "dead", -1)
    async with asyncio.timeout(BOUND_SECONDS):
        while await is_registered(client, "dead"):
            await asyncio.sleep(0.01)
            await sweeper.tick("me")


async def until_due(client: Redis, run_id: str) -> None:
    """Until the run waits longer than it should for somebody to be told of it."""
    due_at = await client.zscore(ThreadKeys(thread_of(run_id)).rings, run_id)
    assert due_at is not None
    async with asyncio.timeout(BOUND_SECONDS):
        while await now_ms(client) <= due_at:
            await asyncio.sleep(0.01)


async def now_ms(client: Redis) -> float:
    seconds, microseconds = await client.time()
    return float(seconds * 1000 + microseconds / 1000)


async def test_a_dead_workers_run_goes_back_to_pending_and_is_rung_for(
    client: Redis, store: ThreadStore, sweeper: Sweeper, held: set[str]
) -> None:
    await alive(client, "me")
    mine, theirs = await submit(store), await submit(store)
    held.add(mine)
    await store.claim(mine, "me", "1")
    await store.claim(theirs, "other", "2")
    await alive(client, "other", -1)
    await sweep(client, sweeper)
    assert await status(store, mine) is RunStatus.RUNNING
    assert await status(store, theirs) is RunStatus.PENDING
    assert await client.llen(QUEUE) > 0
    assert await client.hgetall(keys.live(shard_of(theirs.partition(".")[0]))) in ({}, {mine: "me"})


async def test_who_buries_a_worker_takes_its_runs_wherever_they_are(
    client: Redis, store: ThreadStore, sweeper: Sweeper
) -> None:
    """The shards' own sweeper may have died too, without anybody knowing of it yet."""
    await alive(client, "me")
    await alive(client, "nobody, who has half of the shards")
    runs = [await submit(store) for _ in range(20)]
    for run_id in runs:
        await store.claim(run_id, "dead", run_id)
    await sweep(client, sweeper)
    assert {await status(store, run_id) for run_id in runs} == {RunStatus.PENDING}


async def test_a_run_held_by_a_worker_that_never_was_alive_is_found_too(
    client: Redis, store: ThreadStore, sweeper: Sweeper
) -> None:
    await alive(client, "me")
    run_id = await submit(store)
    await store.claim(run_id, "a zombie that claimed after its burial", "1")
    await sweep(client, sweeper)
    assert await status(store, run_id) is RunStatus.PENDING


async def test_a_run_nobody_was_told_of_is_rung_for_but_not_while_the_queue_is_long(
    client: Redis, store: ThreadStore, sweeper: Sweeper
) -> None:
    await alive(client, "me")
    run_id = await submit(store)
    await client.rpush(QUEUE, *["x"] * (SHORT_QUEUE + 1))
    await until_due(client, run_id)
    await sweep(client, sweeper)
    assert await client.llen(QUEUE) == SHORT_QUEUE + 1
    await client.delete(QUEUE)
    await until_due(client, run_id)
    await sweep(client, sweeper)
    assert await client.llen(QUEUE) == 1
    await until_due(client, run_id)
    await sweep(client, sweeper)
    assert await client.llen(QUEUE) == 2


async def test_a_run_claimed_in_my_name_that_i_do_not_hold_goes_back_to_pending(
    client: Redis, store: ThreadStore, sweeper: Sweeper
) -> None:
    await alive(client, "me")
    run_id = await submit(store)
    await store.claim(run_id, "me", "delivered late, to a worker that no longer waits for it")
    await sweep(client, sweeper)
    assert await status(store, run_id) is RunStatus.RUNNING, "its claim may be on its way"
    await sweep(client, sweeper)
    assert await status(store, run_id) is RunStatus.PENDING


async def test_one_run_with_broken_data_keeps_no_other_waiting(
    client: Redis, store: ThreadStore, sweeper: Sweeper
) -> None:
    await alive(client, "me")
    run_ids = sorted([await submit(store) for _ in range(3)], key=lambda run_id: shard_of(thread_of(run_id)))
    for run_id in run_ids:
        await store.claim(run_id, "gone", "1")
    await client.delete(ThreadKeys(thread_of(run_ids[1])).stream)
    await client.set(ThreadKeys(thread_of(run_ids[1])).stream, "not a stream")
    await sweep(client, sweeper)
    assert await status(store, run_ids[0]) is RunStatus.PENDING
    assert await status(store, run_ids[2]) is RunStatus.PENDING


async def test_one_run_that_cannot_be_read_keeps_no_other_waiting_and_is_tried_again_later(
    client: Redis, store: ThreadStore, sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    await alive(client, "me")
    strange, sound = await submit(store), await submit(store)
    for run_id in (strange, sound):
        await store.claim(run_id, "gone", "1")
    tried, take_from = [], sweeper._take_from

    async def take(worker: str, run_id: str) -> str | None:
        if run_id == strange:
            tried.append(run_id)
            raise ValueError("written by a newer release")
        return await take_from(worker, run_id)

    monkeypatch.setattr(sweeper, "_take_from", take)
    await sweep(client, sweeper)
    assert (await status(store, sound), tried) == (RunStatus.PENDING, [strange])
    await sweep(client, sweeper)
    assert tried == [strange]
    monkeypatch.setattr("modem.sweep.POSTPONED_SECONDS", 0)
    sweeper._put_off.clear()
    await sweep(client, sweeper)
    await sweep(client, sweeper)
    assert len(tried) >= 3


async def test_a_claimed_run_is_not_rung_for(
    client: Redis, store: ThreadStore, sweeper: Sweeper, held: set[str]
) -> None:
    await alive(client, "me")
    run_id = await submit(store)
    await store.claim(run_id, "me", "1")
    held.add(run_id)
    later = await submit(store)
    await until_due(client, later)
    await sweep(client, sweeper)
    [message] = await client.lrange(QUEUE, 0, -1)
    assert later in message


async def test_nobody_is_called_dead_by_a_redis_that_started_less_than_a_lease_ago(
    client: Redis, store: ThreadStore, queue: RunQueue, sweeper: Sweeper, held: set[str]
) -> None:
    await alive(client, "me")
    await alive(client, "other", -10)
    a_day = WorkerSettings(lease_seconds=24 * 3600)
    await a_sweeper(a_day, client, store, queue, held).tick("me")
    assert await is_registered(client, "other")
    await sweep(client, sweeper)
    assert not await is_registered(client, "other")


async def test_after_redis_did_not_answer_leases_get_time_to_be_renewed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    valkey = Valkey(tmp_path, durable=False)
    valkey.start()
    try:
        async with connect(valkey.url, timeout_seconds=1, max_connections=10) as client:
            await _outlast_an_outage(valkey, client, caplog)
    finally:
        valkey.kill()


async def _outlast_an_outage(valkey: Valkey, client: Redis, caplog: pytest.LogCaptureFixture) -> None:
    store, queue = ThreadStore(client, ring_seconds=5, patience_seconds=2), RunQueue(celery_app(valkey.url), client)
    long_lease = SETTINGS.model_copy(update={"lease_seconds": 2})
    sweeper = a_sweeper(long_lease, client, store, queue, set())
    await sweep(client, sweeper)
    await alive(client, "other", 0.05)
    valkey.freeze()
    sweeping = asyncio.create_task(sweeper.run(Named("me")))
    await until(lambda: "could not sweep" in caplog.text, BOUND_SECONDS)
    valkey.thaw()
    thawed = time.monotonic()
    async with asyncio.timeout(BOUND_SECONDS):
        while await is_registered(client, "other"):
            await asyncio.sleep(0.01)
    # Its patience began a moment before: with the error that the log tells of.
    assert time.monotonic() - thawed > long_lease.lease_seconds - 1
    await cancel([sweeping])
    queue.close()


def test_workers_share_all_shards_without_overlap_and_an_unknown_one_gets_none() -> None:
    names = ["a", "b", "c"]
    shares = [share_of(name, names) for name in names]
    assert sorted(shard for share in shares for shard in share) == list(range(SHARDS))
    assert share_of("d", names) == []
