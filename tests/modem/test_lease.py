import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from modem.lease import Lease
from shared import keys
from shared.config import RedisSettings, WorkerSettings
from tests.support.stack import until

BOUND_SECONDS = 20
SETTINGS = WorkerSettings(lease_seconds=0.8, renew_seconds=0.1, watchdog_seconds=0.3)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def lease(redis_url: str) -> AsyncIterator[Lease]:
    """Stopped whatever becomes of its test: a lease that nobody ticks ends the process in time."""
    lease = Lease(SETTINGS, RedisSettings(url=redis_url), "worker-1")
    yield lease
    await asyncio.to_thread(lease.stop)


def ends_at(client: redis.Redis, name: str | None) -> float:
    assert name is not None
    score = client.zscore(keys.WORKERS, name)
    assert isinstance(score, float)
    return score


async def test_a_lease_is_renewed_while_the_loop_turns_and_given_up_at_the_end(
    client: redis.Redis, lease: Lease
) -> None:
    await asyncio.to_thread(lease.start, lambda _: None)
    first = ends_at(client, lease.name)
    deadline = time.monotonic() + BOUND_SECONDS
    while ends_at(client, lease.name) < first + 1000:
        lease.tick()
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert client.hget(keys.worker(str(lease.name)), "label") == "worker-1"
    await asyncio.to_thread(lease.stop)
    assert client.zcard(keys.WORKERS) == 0
    assert client.exists(keys.worker(str(lease.name))) == 0


async def test_a_hung_loop_loses_its_lease(client: redis.Redis, lease: Lease) -> None:
    await asyncio.to_thread(lease.start, lambda _: None)

    def has_ended() -> bool:
        return ends_at(client, lease.name) < time.time() * 1000

    await until(has_ended, BOUND_SECONDS)


async def test_a_buried_worker_hears_of_it_and_goes_on_under_a_new_name(client: redis.Redis, lease: Lease) -> None:
    lost: list[str] = []
    heard = threading.Event()

    def on_lost(name: str) -> None:
        lost.append(name)
        heard.set()

    await asyncio.to_thread(lease.start, on_lost)
    old = lease.name
    assert old is not None
    client.zrem(keys.WORKERS, old)
    lease.tick()
    assert await asyncio.to_thread(heard.wait, BOUND_SECONDS)
    assert lost == [old]
    await until(lambda: lease.name not in (None, old), BOUND_SECONDS)
    assert client.zscore(keys.WORKERS, str(lease.name)) is not None
    assert client.zscore(keys.WORKERS, old) is None
