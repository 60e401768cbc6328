"""A worker that is told to stop, under load: how long its runs stand still."""

import asyncio
import itertools
import signal

import pytest

from tests.support.eventsource import Received, follow, position
from tests.support.stack import Stack

RUNS = 20
DRAIN_SECONDS = 4
RING_SECONDS = 15
STUCK = "[[tokens:600]] [[delay:20]]"  # one model turn of twelve seconds
BUSY = "[[tool:bash {} x40]] [[tokens:20]]"  # turns of some milliseconds


@pytest.mark.slow
async def test_a_drained_workers_runs_go_on_elsewhere_before_a_sweeper_would_find_them() -> None:
    settings = {"DRAIN_SECONDS": DRAIN_SECONDS, "RING_SECONDS": RING_SECONDS}
    env = {f"TRUNKLINE__WORKER__{name}": str(value) for name, value in settings.items()}
    async with Stack(workers=2, env=env) as stack:
        jobs = []
        for number in range(RUNS):
            thread_id = await stack.thread()
            jobs.append((thread_id, await stack.execute(thread_id, STUCK if number % 2 else BUSY)))
        follows = [
            asyncio.create_task(follow(stack.client, f"/api/agent/{t}/stream?run_id={r}", r, seconds=120))
            for t, r in jobs
        ]
        await asyncio.sleep(1.5)
        stack.kill("worker-1", signal.SIGTERM)
        streams = await asyncio.gather(*follows)
        assert {events[-1].type for events in streams} == {"run.completed"}
        pauses = sorted(pause for events in streams for pause in pauses_of(events))
        assert pauses, "the worker had nothing to give back"
        print(f"{len(pauses)} runs drained; they stood still for {pauses[0]:.3f} to {pauses[-1]:.3f} s")
        assert pauses[len(pauses) // 2] < RING_SECONDS / 3
        assert pauses[-1] < RING_SECONDS, "it was found by the sweeper: its message was lost"


def pauses_of(events: list[Received]) -> list[float]:
    """Seconds from each release of a draining worker to the next claim, by Redis' clock."""
    return [
        (position(after)[0] - position(before)[0]) / 1000
        for before, after in itertools.pairwise(events)
        if before.type == "run.interrupted" and before.data["data"]["reason"] == "drain"
    ]
