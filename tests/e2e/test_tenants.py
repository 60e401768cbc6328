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
from shared.ids import new_run_id, new_thread_id
from shared.queue import RunQueue, celery_app
from shared.redis import connect
from shared.slots.slots import slots_of
from shared.threads.store import ThreadStore
from shared.threads.types import NewRun, NewThread
from shared.types import Priority, RunStatus
from tests.support.stack import Stack

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
        assert max(delays) < 5


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
