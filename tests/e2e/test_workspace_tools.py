"""A workspace's own tools, from POST /api/tools to a call by a worker process: real HTTP on both sides."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shared.workers.catalogue import told_catalogue
from tests.gateway.support import Gateway, serving, settings_for, until
from tests.support.databases import put_database
from tests.support.ports import free_port
from tests.support.stack import ROOT
from tests.support.web_server import Answer, Asked, WebServer, web_server

READY_SECONDS = 60
RUN_SECONDS = 30
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

pytestmark = pytest.mark.slow


def weather(asked: Asked) -> Answer:
    if asked.target.endswith("/nowhere"):
        return Answer(body=b'{"degrees": "cold"}')
    return Answer(body=b'{"degrees": 7}')


@contextmanager
def processes(redis_url: str, folder: Path, private_host: str) -> Iterator[None]:
    """A worker, and a server that plays the model for it."""
    port = free_port()
    model = [sys.executable, "-m", "tests.support.model_server", "--port", str(port)]
    settings = {
        "TRUNKLINE__DATA": str(folder),
        "TRUNKLINE__REDIS__URL": redis_url,
        "TRUNKLINE__LLM__MODEL": "openai/scripted",
        "TRUNKLINE__LLM__BASE_URL": f"http://127.0.0.1:{port}/v1",
        "TRUNKLINE__LLM__API_KEY": "sk-test",
        "TRUNKLINE__TOOLS__PRIVATE_HOSTS": private_host,
        "TRUNKLINE__TOOLS__FUNCTION_MODULES": "tests.e2e.own_functions",
        "PYTHONPATH": str(ROOT),
    }
    with (folder / "worker.log").open("w") as log:
        started = [
            subprocess.Popen(model, cwd=ROOT, stdout=subprocess.DEVNULL),
            subprocess.Popen(
                [sys.executable, "-m", "modem", "--name", "w"], cwd=ROOT, env={**os.environ, **settings}, stderr=log
            ),
        ]
        try:
            yield
        finally:
            for process in started:
                process.send_signal(signal.SIGTERM)
            for process in started:
                process.wait(60)


@pytest.fixture
async def server() -> AsyncIterator[WebServer]:
    async with web_server(weather) as server:
        yield server


async def post(gateway: Gateway, path: str, body: Any) -> dict[str, Any]:
    answer = await gateway.client.post(path, json=body, timeout=40)
    assert answer.status_code in (200, 201, 202), answer.text
    return dict(answer.json())


async def ended(gateway: Gateway, run_id: str) -> dict[str, Any]:
    async with asyncio.timeout(RUN_SECONDS):
        while (run := (await gateway.client.get(f"/api/runs/{run_id}")).json())["status"] in ("pending", "running"):
            await asyncio.sleep(0.05)
    return dict(run)


async def test_an_agent_uses_an_http_tool_of_its_workspace_and_its_maker_tries_it(
    redis_url: str, tmp_path: Path, server: WebServer
) -> None:
    put_database(tmp_path)
    with processes(redis_url, tmp_path, f"127.0.0.1:{server.port}"):
        tools: Any = {"function_modules": ["tests.e2e.own_functions"]}
        settings = settings_for(redis_url, tmp_path)
        settings = settings.model_copy(update={"tools": settings.tools.model_copy(update=tools)})
        async with serving(settings) as gateway:
            await until(lambda: told_catalogue(gateway.redis), READY_SECONDS)
            tool = {
                "name": "weather",
                "description": "The weather of a city.",
                "type": "http",
                "config": {"url": f"{server.url}/{{city}}"},
                "inputSchema": CITY,
                "outputSchema": {"type": "object", "properties": {"degrees": {"type": "integer"}}},
                "effect": "repeatable",
            }
            made = await post(gateway, "/api/tools", tool)

            trial = f"/api/tools/{made['id']}/test"
            tried = await post(gateway, trial, {"input": {"city": "oslo"}, "wait_seconds": 30})
            assert (tried["status"], tried["ok"], tried["output"]) == ("succeeded", True, {"degrees": 7})
            wrong = await post(gateway, trial, {"input": {"city": "nowhere"}})
            assert (wrong["ok"], wrong["error_code"]) == (False, "invalid_output")
            unasked = await post(gateway, trial, {"input": {"town": "oslo"}})
            assert (unasked["ok"], unasked["error_code"]) == (False, "invalid_arguments")
            assert [asked.target for asked in server.asked] == ["/oslo", "/nowhere"]

            function = {
                "name": "shout",
                "type": "function",
                "config": {"functionName": "tests.e2e.own_functions:shout"},
            }
            text = {"type": "object", "properties": {"text": {"type": "string"}}}
            await post(gateway, "/api/tools", {**function, "input_schema": text})
            agent = await post(gateway, "/api/agents", {"name": "A", "tools": ["weather", "shout"], "activate": True})
            task = '[[tool:weather {"city": "bergen"} x1]] [[tool:shout {"text": "hi"} x1]]'
            run = await post(gateway, "/api/runs", {"runnable_id": agent["id"], "input": {"task": task}})
            # What the run carries is what the tool was: deleted meanwhile, it is called all the same.
            assert (await gateway.client.delete(f"/api/tools/{made['id']}")).status_code == 204
            assert (await ended(gateway, run["run_id"]))["status"] == "succeeded"
            steps = (await gateway.client.get(f"/api/runs/{run['run_id']}/steps")).json()["items"]
            said = {step["name"]: step["output"]["content"] for step in steps if step["kind"] == "tool"}
            assert '"degrees": 7' in said["weather"]
            assert said["shout"] == "HI"
            assert server.asked[-1].target == "/bergen"

            refused = await gateway.client.post("/api/runs", json={"runnable_id": agent["id"], "input": {"task": task}})
            assert (refused.status_code, "weather" in refused.json()["detail"]) == (409, True)
