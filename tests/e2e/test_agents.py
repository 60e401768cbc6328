"""Agents at work: a gateway over either kind of database, a worker process with kinds of agents of its own, a model."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.config import AgentsSettings, DatabaseSettings
from shared.types import JSON
from tests.gateway.support import Gateway, serving, settings_for, until
from tests.support.model_server import ModelServer, model_server
from tests.support.stack import ROOT
from tests.workflow.definitions import clerks

BOUND_SECONDS = 60
ENDED = ("succeeded", "failed", "canceled")


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with model_server() as server:
        yield server


@pytest.fixture
def worker(
    model: ModelServer, database_url: str, redis_url: str, tmp_path: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    env = {
        **os.environ,
        "TRUNKLINE__DATA": str(tmp_path),
        "TRUNKLINE__REDIS__URL": redis_url,
        "TRUNKLINE__DATABASE__URL": database_url,
        "TRUNKLINE__LLM__MODEL": "openai/scripted",
        "TRUNKLINE__LLM__BASE_URL": model.api_url,
        "TRUNKLINE__LLM__API_KEY": "sk-test",
        "AGENT_REGISTRY_MODULES": clerks.__name__,
        "AGENT_MAX_CONCURRENCY": "1",
        "MGX_CACHE_BACKEND": "redis",
    }
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "modem"], cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture
async def gateway(
    worker: "subprocess.Popen[bytes]", database_url: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[Gateway]:
    database = DatabaseSettings(url=database_url)  # type: ignore[arg-type]
    agents = AgentsSettings(max_concurrency=1)
    async with serving(settings_for(redis_url, tmp_path, database=database, agents=agents)) as gateway:

        async def worker_has_told() -> bool:
            assert worker.poll() is None, (tmp_path / "worker.log").read_text()[-4000:]
            return (await gateway.client.get("/api/agents/definitions")).status_code == 200

        await until(worker_has_told, BOUND_SECONDS)
        yield gateway


async def ended(gateway: Gateway, run_id: str) -> JSON:
    async def has_ended() -> bool:
        return (await gateway.client.get(f"/api/runs/{run_id}")).json()["status"] in ENDED

    await until(has_ended, BOUND_SECONDS)
    return dict((await gateway.client.get(f"/api/runs/{run_id}")).json())


async def clerk(gateway: Gateway, **fields: Any) -> JSON:
    body = {"name": "Ann", "definition_id": "clerk", "activate": True, **fields}
    answer = await gateway.client.post("/api/agents", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_an_agents_life_from_its_hooks_over_a_run_to_its_end(gateway: Gateway, model: ModelServer) -> None:
    agent = await clerk(gateway, temperature=0.25, metadata={"note": "n"})
    hooks = await ended(gateway, agent["hooks"]["run_id"])
    assert hooks["status"] == "succeeded", hooks["error"]
    steps = (await gateway.client.get(f"/api/runs/{hooks['run_id']}/steps")).json()["items"]
    assert [step["name"] for step in steps] == ["initialize", "activate"]
    opened = (await gateway.client.post("/api/agent/initiate", json={"agent_id": agent["id"]})).json()
    run = await ended(gateway, await gateway.execute(opened["thread_id"], "[[tokens:3]]"))
    assert (run["status"], run["runnable_id"]) == ("succeeded", agent["id"])
    [asked] = [request.body for request in model.requests]
    assert asked["messages"][0] == {"role": "system", "content": "You file what you are sent."}
    assert asked["temperature"] == 0.25
    assert [tool["function"]["name"] for tool in asked["tools"]] == ["read_file"]
    gone = (await gateway.client.post(f"/api/agents/{agent['id']}/shutdown")).json()
    last = await ended(gateway, gone["hooks"]["run_id"])
    assert (last["status"], last["thread_id"]) == ("succeeded", hooks["thread_id"])


@pytest.mark.slow
async def test_runs_of_one_agent_wait_for_their_turn_and_one_answer_is_enough_for_the_same_request(
    gateway: Gateway, model: ModelServer
) -> None:
    agent = await clerk(gateway, temperature=0)
    await ended(gateway, agent["hooks"]["run_id"])
    threads = [(await gateway.client.post("/api/agent/initiate", json={"agent_id": agent["id"]})).json() for _ in "123"]
    task = "[[tokens:10]] [[delay:50]]"
    begun = [await gateway.execute(thread["thread_id"], task) for thread in threads]
    runs = sorted([await ended(gateway, run_id) for run_id in begun], key=lambda run: str(run["started_at"]))
    assert [run["status"] for run in runs] == ["succeeded"] * 3
    assert all(before["ended_at"] <= after["started_at"] for before, after in itertools.pairwise(runs))
    assert len({run["output"] for run in runs}) == 1
    assert len(model.requests) == 1


@pytest.mark.slow
async def test_a_hook_that_fails_keeps_the_agent_from_runs_and_says_why(gateway: Gateway) -> None:
    agent = await clerk(gateway, metadata={"fails": True})
    hooks = await ended(gateway, agent["hooks"]["run_id"])
    assert (hooks["status"], "no desk is free" in hooks["error"]["detail"]) == ("failed", True)
    body = {"runnable_id": agent["id"], "input": {"task": "x"}}
    assert (await gateway.client.post("/api/runs", json=body)).status_code == 409
    again = (await gateway.client.post(f"/api/agents/{agent['id']}/activate")).json()
    retried = await ended(gateway, again["hooks"]["run_id"])
    assert retried["retried_from"] == hooks["run_id"]
    steps = (await gateway.client.get(f"/api/runs/{retried['run_id']}/steps")).json()["items"]
    assert [(step["name"], step["status"]) for step in steps] == [("initialize", "succeeded"), ("activate", "failed")]


@pytest.mark.slow
async def test_a_chat_streams_what_the_model_says(gateway: Gateway) -> None:
    body = {"agent": "chat", "input": "[[tokens:20]]", "session_id": "s"}
    async with gateway.client.stream("POST", "/chat/stream", json=body, timeout=BOUND_SECONDS) as answer:
        lines = [line.removeprefix("data: ") async for line in answer.aiter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    _, *chunks, done = [json.loads(line) for line in lines[:-1]]
    assert (
        "".join(chunk["content"] for chunk in chunks)
        == done["done"]["output"]
        == "".join(f"t{n:05d} " for n in range(20))
    )
