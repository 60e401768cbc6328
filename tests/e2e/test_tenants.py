"""Tenants beside each other: one's flood, and the others' runs."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.config import Settings, WorkerSettings
from shared.ids import SHARDS, new_run_id, new_thread_id
from shared.queue import RunQueue, celery_app
from shared.redis import connect
from shared.slots.slots import slots_of
from shared.tasks import cancel
from shared.threads.store import ThreadStore
from shared.threads.types import NewRun, NewThread
from shared.types import Priority, RunStatus
from tests.support.stack import ROOT, Stack

FLOOD = 10_000
LIMIT = 20
TASK = "[[tokens:20]] [[delay:20]]"


@dataclass(frozen=True)
class Front:
    """What a gateway does with a tenant's requests. (A stack has the keys of one workspace only.)"""

    client: Redis
    store: ThreadStore
    queue: RunQueue

    async def submit(self, workspace: str) -> str:
        thread_id = new_thread_id()
        await self.store.create_thread(NewThread(thread_id, workspace))
        new = NewRun(new_run_id(thread_id), workspace, {"task": TASK, "context_data": []})
        await self.store.submit(new, queued={"task": TASK})
        await self.queue.ring(new.id, priority=Priority.NORMAL)
        return new.id

    async def flood(self, workspace: str, runs: int) -> list[str]:
        turns = asyncio.Semaphore(20)

        async def one() -> str:
            async with turns:
                return await self.submit(workspace)

        return list(await asyncio.gather(*(one() for _ in range(runs))))

    async def delay(self, run_id: str) -> float:
        """Seconds from a run's submission to its first claim, by Redis' clock."""
        deadline = time.monotonic() + 60
        while True:
            run = await self.store.run(run_id)
            assert run
            if run.started_at:
                return (run.started_at - run.created_at).total_seconds()
            assert time.monotonic() < deadline, f"{run_id} has not started"
            await asyncio.sleep(0.05)

    async def ended(self, run_ids: Sequence[str]) -> int:
        return sum(run.status is RunStatus.SUCCEEDED for run in await self.store.runs(run_ids))


@asynccontextmanager
async def front_of(stack: Stack, limit: int | None) -> AsyncIterator[Front]:
    url = stack.redis_url()
    settings = Settings(worker=WorkerSettings(workspace_concurrency=limit))
    async with connect(url, timeout_seconds=5, max_connections=50) as client:
        queue = RunQueue(celery_app(url), client, slots_of(settings, client))
        yield Front(client, ThreadStore(client, ring_seconds=5, patience_seconds=2), queue)
        queue.close()


def limited(limit: int) -> dict[str, str]:
    return {"TRUNKLINE__WORKER__WORKSPACE_CONCURRENCY": str(limit)}


@pytest.mark.slow
async def test_one_tenants_ten_thousand_runs_delay_anothers_by_seconds_at_most() -> None:
    async with Stack(workers=2, env=limited(LIMIT)) as stack, front_of(stack, LIMIT) as front:
        began = time.monotonic()
        await front.flood("many", FLOOD)
        submitted = time.monotonic() - began
        delays = [await front.delay(await front.submit("few")) for _ in range(10)]
        assert await front.client.zcard(keys.slots("many")) == LIMIT
        assert await front.client.zcard(keys.parked("many")) > FLOOD / 2
        print(f"{FLOOD} runs submitted in {submitted:.0f} s; another tenant's wait {max(delays):.3f} s at most")
        assert max(delays) < 20  # behind the flood it would be minutes


@pytest.mark.slow
async def test_a_killed_workers_slots_are_not_lost() -> None:
    async with Stack(workers=2, env=limited(3)) as stack, front_of(stack, 3) as front:
        runs = await front.flood("acme", 60)
        for _ in range(3):
            done = await front.ended(runs)
            deadline = time.monotonic() + 60
            while await front.ended(runs) < done + 5:
                assert time.monotonic() < deadline
                assert await front.client.zcard(keys.slots("acme")) <= 3
                await asyncio.sleep(0.1)
            stack.kill(f"worker-{secrets.choice([1, 2])}")
        deadline = time.monotonic() + 120
        while await front.ended(runs) < len(runs):
            assert time.monotonic() < deadline, f"{await front.ended(runs)} of {len(runs)}"
            await asyncio.sleep(0.2)
        assert await front.client.zcard(keys.parked("acme")) == 0


@dataclass
class Watch:
    """How many runs went on at the same time."""

    client: Redis
    most: int = 0

    async def run(self) -> None:
        while True:
            pipeline = self.client.pipeline(transaction=False)
            for shard in range(SHARDS):
                pipeline.hlen(keys.live(shard))
            self.most = max(self.most, sum(await pipeline.execute()))
            await asyncio.sleep(0.01)


@asynccontextmanager
async def watched(client: Redis) -> AsyncIterator[Watch]:
    watch = Watch(client)
    watching = asyncio.create_task(watch.run())
    yield watch
    await cancel([watching])


@pytest.mark.slow
async def test_whatever_lets_a_run_go_on_lets_it_through_the_same_gate() -> None:
    """Children, timers, events, retries, forks, and runs that cancel others: one at a time, and all get their turn."""
    modules = {"TRUNKLINE__WORKFLOW__MODULES": '["tests.support.flows"]', "PYTHONPATH": str(ROOT)}
    async with Stack(workers=2, env={**modules, **limited(1)}) as stack, front_of(stack, 1) as front:
        async with watched(front.client) as watch:
            waiting = await post(stack, "/api/runs", function("expect", {"name": "go"}))
            runs = [await post(stack, "/api/runs", function("call_naps", 0.2)) for _ in range(3)]
            failed = await post(stack, "/api/runs", function("nap", "no number"))
            await ended(stack, failed, "failed")
            runs += [await post(stack, f"/api/runs/{failed}/{how}", {"input": 0.1}) for how in ("fork", "fork")]
            retried = await post(stack, f"/api/runs/{failed}/retry", {})
            threads = [await stack.thread() for _ in range(2)]
            displaced = [await stack.execute(thread_id, "[[tokens:400]] [[delay:20]]") for thread_id in threads]
            await started(stack, displaced[0])
            runs.append(await stack.execute(threads[0], TASK, on_busy="interrupt"))
            await started(stack, displaced[1])
            runs.append(await stack.execute(threads[1], TASK, on_busy="rollback"))
            await post(stack, "/api/events", {"name": "go", "payload": 7}, field="event_id")
            for run_id in (waiting, *runs):
                await ended(stack, run_id, "succeeded")
            await ended(stack, retried, "failed")
            for run_id in displaced:
                await ended(stack, run_id, "canceled")
            assert watch.most == 1
        assert not await front.client.zrange(keys.slots("default"), 0, -1)
        assert not await front.client.zrange(keys.parked("default"), 0, -1)


def function(name: str, input: object) -> dict[str, object]:
    return {"runnable_type": "function", "runnable_id": name, "input": input}


async def post(stack: Stack, path: str, body: object, field: str = "run_id") -> str:
    answer = await stack.client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()[field])


async def started(stack: Stack, run_id: str) -> None:
    async with asyncio.timeout(60):
        while (await stack.run(run_id))["status"] != "running":
            await asyncio.sleep(0.05)


async def ended(stack: Stack, run_id: str, status: str) -> None:
    async with asyncio.timeout(60):
        while (run := await stack.run(run_id))["status"] not in ("succeeded", "failed", "canceled"):
            await asyncio.sleep(0.05)
    assert run["status"] == status, run
