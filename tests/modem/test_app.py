"""Celery as workers run it, in a process of its own, on a real broker."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from redis.asyncio import Redis

from shared.queue import QUEUE, RunQueue, celery_app
from shared.types import Priority
from tests.support.stack import ROOT

BOUND_SECONDS = 30


@pytest.fixture
def queue(redis_url: str, client: Redis) -> Iterator[RunQueue]:
    queue = RunQueue(celery_app(redis_url), client)
    yield queue
    queue.close()


@pytest.fixture
def start(redis_url: str) -> Iterator[Callable[[int], "subprocess.Popen[bytes]"]]:
    """Starts a consumer with so many slots."""
    started: list[subprocess.Popen[bytes]] = []

    def start(slots: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-W", "ignore", "-m", "tests.modem.consumer", redis_url, str(slots)]
        started.append(subprocess.Popen(command, cwd=ROOT))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(10)


async def taken(client: Redis, count: int) -> list[str]:
    """What the consumer has taken, in order."""
    found = [await client.blpop(["taken"], BOUND_SECONDS) for _ in range(count)]
    return [str(item[1]) for item in found if item]


async def test_workers_take_high_before_normal_before_low_and_low_when_nothing_else_is_there(
    client: Redis, queue: RunQueue, start: Callable[[int], "subprocess.Popen[bytes]"]
) -> None:
    for number in range(3):
        for priority in reversed(Priority):
            await queue.ring(f"{priority}-{number}", priority=priority)
    start(1)
    assert await taken(client, 9) == [f"{priority}-{number}" for priority in Priority for number in range(3)]
    await queue.ring("low-again", priority=Priority.LOW)
    assert await taken(client, 1) == ["low-again"]


async def test_a_worker_that_waits_for_its_runs_at_a_shutdown_keeps_no_message(
    client: Redis, queue: RunQueue, start: Callable[[int], "subprocess.Popen[bytes]"]
) -> None:
    await client.set("long", 1)
    await queue.ring("long", priority=Priority.NORMAL)
    process = start(4)
    assert await taken(client, 1) == ["long"]
    process.send_signal(signal.SIGTERM)
    for number in range(30):  # some of them while its last BRPOP goes on
        await asyncio.sleep(0.05)
        await queue.ring(f"late-{number}", priority=Priority.NORMAL)
    async with asyncio.timeout(BOUND_SECONDS):
        while not await client.exists("let go"):
            await asyncio.sleep(0.01)
    assert process.poll() is None
    here = set(await taken(client, await client.llen("taken")))
    there = {json.loads(message)["headers"]["argsrepr"][2:-2] for message in await client.lrange(QUEUE, 0, -1)}
    # The signal may have come between the taking of a message and its acknowledgement: then it is there once more.
    assert (here | there) - {"long"} == {f"late-{number}" for number in range(30)}
    assert len(here) <= 2
    await client.delete("long")
    assert await asyncio.to_thread(process.wait, BOUND_SECONDS) == 0
