"""With replicas, nothing counts before they have it: a failover loses nothing that was answered."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.ids import new_run_id, new_thread_id
from shared.redis import NotReplicated, connect
from shared.threads.store import ThreadStore
from shared.threads.types import NewRun, NewThread
from shared.types import RunStatus
from tests.support.valkey import Valkey


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Valkey]:
    yield from _running(tmp_path / "primary")


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Valkey]:
    yield from _running(tmp_path / "replica")


def _running(folder: Path) -> Iterator[Valkey]:
    folder.mkdir()
    valkey = Valkey(folder)
    valkey.start()
    try:
        yield valkey
    finally:
        valkey.kill()


@pytest.fixture
async def client(primary: Valkey, replica: Valkey) -> AsyncIterator[Redis]:
    client, other = (connect(valkey.url, timeout_seconds=5, max_connections=10) for valkey in (primary, replica))
    await client.config_set("repl-diskless-sync-delay", 0)
    await other.replicaof("127.0.0.1", primary.port)
    async with asyncio.timeout(30):
        while (await other.info("replication"))["master_link_status"] != "up":
            await asyncio.sleep(0.02)
    yield client
    await client.aclose()
    await other.aclose()


def a_store(client: Redis, patience_seconds: float) -> ThreadStore:
    return ThreadStore(client, ring_seconds=5, patience_seconds=patience_seconds, replicas=1)


async def a_run(store: ThreadStore) -> str:
    thread = await store.create_thread(NewThread(new_thread_id(), "w"))
    run_id = new_run_id(thread.id)
    await store.submit(NewRun(run_id, "w", {"task": "x"}), queued={})
    return run_id


async def test_what_was_answered_is_there_after_a_failover(client: Redis, primary: Valkey, replica: Valkey) -> None:
    store = a_store(client, patience_seconds=5)
    runs = [await a_run(store) for _ in range(20)]
    claims = [await store.claim(run_id, "w1", "call") for run_id in runs]
    assert all(claims)
    primary.kill()
    promoted = connect(replica.url, timeout_seconds=5, max_connections=10)
    await promoted.replicaof("NO", "ONE")
    after = ThreadStore(promoted, ring_seconds=5, patience_seconds=5)
    found = [await after.run(run_id) for run_id in runs]
    assert [(run.status, run.epoch) for run in found if run] == [(RunStatus.RUNNING, 1)] * len(runs)
    await promoted.aclose()


async def test_nothing_counts_while_the_replica_does_not_keep_it(client: Redis, replica: Valkey) -> None:
    thread = await a_store(client, patience_seconds=5).create_thread(NewThread(new_thread_id(), "w"))
    new = NewRun(new_run_id(thread.id), "w", {"task": "x"})
    replica.freeze()
    try:
        for _ in range(2):  # the first writes, the second finds it written
            with pytest.raises(NotReplicated):
                await a_store(client, patience_seconds=0).submit(new, queued={})
        patient = asyncio.create_task(a_store(client, patience_seconds=30).submit(new, queued={}))
        await asyncio.sleep(0)
        assert not patient.done()
    finally:
        replica.thaw()
    assert (await patient).ring == new.id


async def test_text_deltas_do_not_wait_for_replicas(client: Redis, replica: Valkey) -> None:
    store = a_store(client, patience_seconds=5)
    attempt = await store.claim(await a_run(store), "w1", "call")
    assert attempt is not None
    replica.freeze()
    try:
        async with asyncio.timeout(5):
            await attempt.emit([])
        with pytest.raises(RedisError):
            await a_store(client, patience_seconds=0).cancel(attempt.run.id, reason="test")
    finally:
        replica.thaw()
