import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from shared.queue import RunQueue, celery_app
from shared.redis import connect
from shared.types import Priority
from tests.support.stack import ROOT

BOUND_SECONDS = 30


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url, timeout_seconds=5, max_connections=10)
    yield client
    await client.aclose()


@pytest.fixture
def queue(redis_url: str, client: Redis) -> Iterator[RunQueue]:
    queue = RunQueue(celery_app(redis_url), client)
    yield queue
    queue.close()


@pytest.fixture
def start(redis_url: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes to be ended with the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait(10)


async def taken(client: Redis, count: int) -> list[str]:
    """What the consumer has taken, in order."""
    found = [await client.blpop(["taken"], BOUND_SECONDS) for _ in range(count)]
    return [str(item[1]) for item in found if item]


async def test_workers_take_high_before_normal_before_low_and_low_when_nothing_else_is_there(
    client: Redis, queue: RunQueue, redis_url: str, start: list[subprocess.Popen[bytes]]
) -> None:
    for number in range(3):
        for priority in reversed(Priority):
            await queue.ring(f"{priority}-{number}", priority=priority)
    start.append(subprocess.Popen([sys.executable, "-m", "tests.modem.consumer", redis_url], cwd=ROOT))
    assert await taken(client, 9) == [f"{priority}-{number}" for priority in Priority for number in range(3)]
    await queue.ring("low-again", priority=Priority.LOW)
    assert await taken(client, 1) == ["low-again"]
