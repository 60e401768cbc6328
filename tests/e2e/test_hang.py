"""A worker whose event loop hangs: nobody has to notice it."""

import asyncio
from pathlib import Path

import pytest

from tests.support.eventsource import follow
from tests.support.stack import ROOT, Stack

SETTINGS = {
    "TRUNKLINE__WORKFLOW__MODULES": '["tests.support.flows"]',
    "PYTHONPATH": str(ROOT),
    "TRUNKLINE__WORKER__WATCHDOG_SECONDS": "1",
    "TRUNKLINE__WORKER__LEASE_SECONDS": "2",
    "TRUNKLINE__WORKER__RENEW_SECONDS": "0.5",
    "TRUNKLINE__WORKER__HANG_SECONDS": "5",
}


@pytest.mark.slow
async def test_a_hung_workers_run_goes_on_elsewhere_and_the_worker_is_replaced(tmp_path: Path) -> None:
    async with Stack(workers=2, env=SETTINGS) as stack:
        pids = {name: stack.pid(name) for name in ("worker-1", "worker-2")}
        body = {"runnable_type": "function", "runnable_id": "stop_the_loop_once", "input": str(tmp_path / "mark")}
        run = (await stack.client.post("/api/runs", json=body)).json()
        path = f"/api/agent/{run['thread_id']}/stream?run_id={run['run_id']}"
        events = await follow(stack.client, path, run["run_id"], seconds=60)
        assert [event.type for event in events][-3:] == ["run.interrupted", "run.resumed", "run.completed"]
        assert events[-1].data["data"]["output"] == "went on"
        async with asyncio.timeout(60):
            while all(stack.pid(name) == pid for name, pid in pids.items()):
                await asyncio.sleep(0.1)
        logs = stack.logged("worker-1") + stack.logged("worker-2")
        assert "the event loop has not turned" in logs
        assert "stop_the_loop_once" in logs, "its stack"
