"""`python -m scripts.benchmark.waits`: many runs wait for one event, while others run; then all of them get it.

Prints what a waiting run costs in Redis and in the workers' memory, and how long it takes until all have gone on.
"""

import argparse
import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import redis.asyncio
import uvloop

from scripts.benchmark.meter import memory_mb
from scripts.benchmark.targets import ModelServer, Trunkline
from shared import keys
from shared.events.bus import Topic
from shared.ids import SHARDS

REQUESTS_AT_ONCE = 50
WORKSPACE = "default"
TASK = "[[tool:bash {}]] [[tokens:8]]"


class Waits:
    """One stack with `runs` waiting runs."""

    def __init__(self, target: Trunkline, http: aiohttp.ClientSession, client: redis.asyncio.Redis, runs: int) -> None:
        self._target = target
        self._http = http
        self._client = client
        self._runs = runs

    async def measure(self) -> None:
        bytes_before, memory_before = await self._redis_bytes(), self._workers_mb()
        async with _timed("submitted"):
            await self._at_once([self._submit(number) for number in range(self._runs)])
        async with _timed("waiting"):
            await self._until(waiting=self._runs)
        used = (await self._redis_bytes() - bytes_before) / self._runs
        print(f"Redis: {used:,.0f} bytes a waiting run, with its stream and its journal")
        print(f"workers: {memory_before} MB before, {self._workers_mb()} MB with {self._runs:,} waiting runs")
        async with _timed("20 other runs, one after the other"):
            for _ in range(20):
                await self._target.run(self._http, TASK, 8)
        async with _timed("event published"):
            await self._target.post(self._http, "/api/events", {"name": "bench", "key": "all", "payload": 1})
        async with _timed("all have gone on and ended"):
            await self._until(waiting=0)
        print(f"workers: {self._workers_mb()} MB at the end")

    async def _submit(self, number: int) -> None:
        body = {"runnable_type": "function", "runnable_id": "bench_wait", "input": "all"}
        await self._target.post(self._http, "/api/runs", body)

    async def _at_once(self, work: list[object]) -> None:
        slots = asyncio.Semaphore(REQUESTS_AT_ONCE)

        async def one(call: object) -> None:
            async with slots:
                await call  # type: ignore[misc]

        await asyncio.gather(*(one(call) for call in work))

    async def _until(self, *, waiting: int) -> None:
        """By the waiters of the topic, and by the runs that still have a turn."""
        while True:
            waiters = await self._client.zcard(Topic.of(WORKSPACE, "bench", key="all").keys.waiters)
            pipeline = self._client.pipeline(transaction=False)
            for shard in range(SHARDS):
                pipeline.zcard(keys.rings(shard))
                pipeline.hlen(keys.live(shard))
            if waiters == waiting and not any(await pipeline.execute()):
                return
            await asyncio.sleep(0.2)

    async def _redis_bytes(self) -> int:
        return int((await self._client.info("memory"))["used_memory"])

    def _workers_mb(self) -> str:
        found = [memory_mb(pid) for name, pid in self._target.processes().items() if name.startswith("worker")]
        return " + ".join(f"{mb:.0f}" for mb in found)


@asynccontextmanager
async def _timed(what: str) -> AsyncIterator[None]:
    start = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - start:.1f} s")


async def measure(options: argparse.Namespace) -> None:
    os.environ["TRUNKLINE__WORKFLOW__MODULES"] = '["scripts.benchmark.flows"]'
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as http:
        with ModelServer() as model, Trunkline(model, options.workers) as target:
            async with redis.asyncio.Redis.from_url(target.redis_url, decode_responses=True) as client:
                await Waits(target, http, client, options.runs).measure()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.benchmark.waits", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    uvloop.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
