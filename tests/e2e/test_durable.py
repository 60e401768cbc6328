"""Waits on real processes: through a restart of everything, with timers, and signals from outside."""

import asyncio
import signal
import time
from typing import Any

import httpx
import pytest

from tests.support.eventsource import follow
from tests.support.stack import ROOT, Stack

MODULES = {"TRUNKLINE__WORKFLOW__MODULES": '["tests.support.flows"]', "PYTHONPATH": str(ROOT)}

pytestmark = pytest.mark.slow


async def start(stack: Stack, name: str, input: Any) -> dict[str, Any]:
    body = {"runnable_type": "function", "runnable_id": name, "input": input}
    answer = await stack.client.post("/api/runs", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def until_status(stack: Stack, run_id: str, status: str, seconds: float = 20) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        while (run := await stack.run(run_id))["status"] != status:
            await asyncio.sleep(0.05)
    return run


async def test_an_approval_waits_through_a_restart_of_everything() -> None:
    async with Stack(env=MODULES) as stack:
        run = await start(stack, "ask", {"deploy": "v2"})
        await until_status(stack, run["run_id"], "waiting")
        assert await stack.down() == 0
        await stack.up()
        [listed] = (await stack.client.get("/api/approvals")).json()["items"]
        assert listed["wait"]["request"] == {"deploy": "v2"}
        for name in ("valkey", "gateway", "worker-1"):
            stack.kill(name, signal.SIGKILL)
        await until_answers(stack)
        answer = await stack.client.post(f"/api/steps/{listed['step_id']}/human-complete", json={"output": "go"})
        assert answer.status_code == 200, answer.text
        done = await until_status(stack, run["run_id"], "succeeded", 30)
        assert done["output"] == "go"
        path = f"/api/agent/{run['thread_id']}/stream?run_id={run['run_id']}"
        events = [event.type for event in await follow(stack.client, path, run["run_id"])]
        assert events.count("step.waiting_human") == events.count("step.completed") == 1
        assert events[-1] == "run.completed"


async def until_answers(stack: Stack) -> None:
    """Until the supervisor has started again what was killed."""
    async with asyncio.timeout(60):
        while True:
            try:
                if (await stack.client.get("/health/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.2)


async def test_a_timer_that_was_due_while_nothing_ran_fires_at_once_and_never_early() -> None:
    async with Stack(env=MODULES) as stack:
        due, later = await start(stack, "nap", 4), await start(stack, "nap", 25)
        began = time.monotonic()
        for run in (due, later):
            await until_status(stack, run["run_id"], "waiting")
        assert await stack.down() == 0
        await stack.up()
        done = await until_status(stack, due["run_id"], "succeeded", 30)
        assert done["output"] == "awake"
        await until_status(stack, later["run_id"], "succeeded", 60)
        assert time.monotonic() - began >= 25


async def test_runs_that_wait_hold_no_place_in_a_worker_and_all_get_their_event() -> None:
    async with Stack(env={**MODULES, "TRUNKLINE__WORKER__CONCURRENCY": "4"}) as stack:
        runs = await asyncio.gather(*(start(stack, "expect", {"name": "go"}) for _ in range(40)))
        await asyncio.gather(*(until_status(stack, run["run_id"], "waiting", 60) for run in runs))
        counted = await start(stack, "count", 20)
        assert (await until_status(stack, counted["run_id"], "succeeded"))["output"] == 20
        assert (await stack.client.post("/api/events", json={"name": "go", "payload": 7})).status_code == 201
        done = await asyncio.gather(*(until_status(stack, run["run_id"], "succeeded", 60) for run in runs))
        assert [run["output"] for run in done] == [7] * 40
