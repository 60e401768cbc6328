"""Tools on real processes: a user's own, one that a human is asked about, and a sub-agent whose worker is killed."""

import asyncio
import signal
from typing import Any

import pytest

from tests.support.stack import ROOT, Stack

ENV = {
    "TRUNKLINE__TOOLS__MODULES": "tests.e2e.own_tools",
    "TRUNKLINE__TOOLS__ENABLED": "default,count,delegate",
    "TRUNKLINE__TOOLS__PERMISSIONS": '["count: ask *secret*"]',
    "PYTHONPATH": str(ROOT),
}

pytestmark = pytest.mark.slow


async def start(stack: Stack, task: str) -> str:
    answer = await stack.client.post("/api/runs", json={"input": {"task": task}})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["run_id"])


async def until_status(stack: Stack, run_id: str, status: str, seconds: float = 40) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        while (run := await stack.run(run_id))["status"] != status:
            await asyncio.sleep(0.05)
    return run


async def steps_of(stack: Stack, run_id: str) -> list[dict[str, Any]]:
    return list((await stack.client.get(f"/api/runs/{run_id}/steps")).json()["items"])


async def child_of(stack: Stack, run_id: str) -> str:
    async with asyncio.timeout(20):
        while not (found := [step for step in await steps_of(stack, run_id) if step["kind"] == "child"]):
            await asyncio.sleep(0.05)
    return str(found[0]["wait"]["name"])


async def test_tools_of_a_users_approvals_and_sub_agents_on_real_processes() -> None:
    async with Stack(env=ENV) as stack:
        counted = await start(stack, '[[tool:count {"text": "one two three"} x1]]')
        await until_status(stack, counted, "succeeded")
        [tool] = [step for step in await steps_of(stack, counted) if step["kind"] == "tool"]
        assert tool["output"]["content"] == "3 words"

        asking = await start(stack, '[[tool:count {"text": "a secret"} x1]]')
        await until_status(stack, asking, "waiting")
        [listed] = (await stack.client.get("/api/approvals")).json()["items"]
        assert listed["wait"]["request"]["name"] == "count"
        path = f"/api/steps/{listed['step_id']}/human-complete"
        assert (await stack.client.post(path, json={"output": "Not that."})).status_code == 200
        await until_status(stack, asking, "succeeded")
        [tool] = [step for step in await steps_of(stack, asking) if step["kind"] == "tool"]
        assert "They say: Not that." in tool["output"]["content"]

        prompt = "[[tokens:200]] [[delay:20]]"
        parent = await start(stack, f'[[tool:delegate {{"description": "x", "prompt": "{prompt}"}} x1]]')
        child = await child_of(stack, parent)
        await until_status(stack, child, "running")
        assert (await stack.run(parent))["status"] == "waiting"
        stack.kill("worker-1", signal.SIGKILL)
        await until_status(stack, parent, "succeeded", 90)
        assert (await stack.run(child))["attempt"] > 1
        [tool] = [step for step in await steps_of(stack, parent) if step["kind"] == "tool"]
        assert tool["output"]["content"].split() == [f"t{i:05d}" for i in range(200)]
