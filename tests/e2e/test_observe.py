"""What a gateway process and a worker process tell of one run: a trace, metrics, log lines, each other."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.databases import put_database
from tests.support.metrics import value
from tests.support.model_server import model_server
from tests.support.otlp import Receiver, receiving
from tests.support.ports import free_port
from tests.support.stack import ROOT, ends_with_us, until

KEY = "a-key-for-this-test-only"
READY_SECONDS = 60
TASK = 'A secret word. [[tool:todo_write {"todos": [{"content": "a secret plan"}]}]] [[tokens:5]]'
SLOW = TASK + " [[delay:400]]"


@dataclass
class Processes:
    """A gateway and as many workers as are started."""

    folder: Path
    env: dict[str, str]
    port: int
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", headers={"X-API-Key": KEY}, timeout=10
        )

    def start(self, name: str, *command: str, **env: str) -> None:
        whole = ends_with_us([sys.executable, "-m", *command])
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(whole, cwd=ROOT, env={**self.env, **env}, stdout=log, stderr=log)

    async def worker(self, name: str, **env: str) -> None:
        self.start(name, "modem", "--name", name, **env)
        await until(lambda: "ready for" in self.log(name), READY_SECONDS)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    async def answers(self) -> bool:
        try:
            return (await self.client.get("/health/ready")).status_code == 200
        except httpx.TransportError:
            return False

    async def execute(self, task: str, **headers: str) -> str:
        thread_id = (await self.client.post("/api/agent/initiate")).json()["thread_id"]
        answer = await self.client.post(f"/api/agent/{thread_id}/execute", json={"task": task}, headers=headers)
        return str(answer.json()["run_id"])

    async def run(self, run_id: str) -> dict[str, Any]:
        return dict((await self.client.get(f"/api/runs/{run_id}")).json())

    async def ended(self, run_id: str) -> dict[str, Any]:
        async with asyncio.timeout(READY_SECONDS):
            while (run := await self.run(run_id))["ended_at"] is None:
                await asyncio.sleep(0.1)
        return run


@asynccontextmanager
async def processes(redis_url: str, folder: Path, **env: str) -> AsyncIterator[Processes]:
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(model_server())
        port = free_port()
        settings = {
            "DATA": str(folder),
            "REDIS__URL": redis_url,
            "API__PORT": str(port),
            "AUTH__KEYS": json.dumps([KEY]),
            "RATE_LIMIT__ENABLED": "false",
            "LOG__FORMAT": "json",
            "LLM__MODEL": "openai/scripted",
            "LLM__BASE_URL": model.api_url,
            "LLM__API_KEY": "sk-test",
            "WORKER__LEASE_SECONDS": "2",
            "WORKER__RENEW_SECONDS": "0.5",
            **env,
        }
        variables = {f"TRUNKLINE__{name}": value for name, value in settings.items()}
        found = Processes(folder, {**os.environ, **variables}, port)
        try:
            put_database(folder)
            found.start("gateway", "gateway")
            async with asyncio.timeout(READY_SECONDS):
                while not await found.answers():
                    await asyncio.sleep(0.1)
            yield found
        finally:
            await found.client.aclose()
            for process in found.running.values():
                process.kill()
                process.wait(10)


def lines(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


async def test_one_trace_leads_from_the_request_to_models_and_tools_and_ids_stand_in_the_logs(
    redis_url: str, tmp_path: Path
) -> None:
    with receiving() as receiver:
        async with processes(redis_url, tmp_path, TRACING__ENDPOINT=receiver.url) as found:
            port = free_port()
            await found.worker("worker-1", TRUNKLINE__METRICS__WORKER_PORT=str(port))
            run_id = await found.execute(TASK, **{"X-Request-Id": "request-of-a-test"})
            run = await found.ended(run_id)
            assert (run["status"], run["request_id"]) == ("succeeded", "request-of-a-test")
            await until(lambda: receiver.named("invoke_agent") and receiver.named("POST /api/agent/{thread_id}"), 30)
            assert_one_tree(receiver, run_id)
            [worker] = (await found.client.get("/api/workers")).json()["items"]
            assert (worker["label"], worker["alive"], worker["metrics_port"]) == ("worker-1", True, port)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                assert_counted((await client.get("/metrics")).text, run_id)
                async with asyncio.timeout(READY_SECONDS):
                    while not value((await client.get("/metrics")).text, "trunkline_archive_done_timestamp_seconds"):
                        await asyncio.sleep(0.1)
                assert (await client.get("/health/live")).status_code == 200
                assert (await client.get("/health/ready")).status_code == 200
                assert (await client.get("/")).status_code == 404
        of_the_run = [line for line in lines(found.log("worker-1")) if line.get("run_id") == run_id]
        assert all(line["request_id"] == "request-of-a-test" for line in of_the_run)
        assert "Traceback" not in found.log("worker-1")


def assert_one_tree(receiver: Receiver, run_id: str) -> None:
    [request] = receiver.named("POST /api/agent/{thread_id}/execute")
    [attempt] = receiver.named("invoke_agent")
    assert (request.parent, request.service) == ("", "trunkline-gateway")
    assert request.attributes["trunkline.request_id"] == "request-of-a-test"
    assert (attempt.parent, attempt.service) == (request.id, "trunkline-worker")
    assert attempt.attributes["trunkline.run.id"] == run_id
    assert attempt.attributes["trunkline.run.status"] == "succeeded"
    trace = [span for span in receiver.spans if span.trace == request.trace]
    steps = [span for span in trace if span.name.startswith("step ")]
    assert sorted(step.name for step in steps) == ["step llm", "step llm", "step tool"]
    assert {step.parent for step in steps} == {attempt.id}
    chats = receiver.named("chat scripted")
    assert [receiver.parent_of(chat).name for chat in chats] == ["step llm", "step llm"]
    assert chats[0].attributes["gen_ai.usage.output_tokens"] > 0
    [tool] = receiver.named("execute_tool todo_write")
    assert receiver.parent_of(tool).name == "step tool"
    assert len(trace) == 8
    assert not any(span.failed for span in trace)
    assert "secret" not in str(receiver.spans)


def assert_counted(text: str, run_id: str) -> None:
    assert value(text, "trunkline_runs_total", kind="agent", status="succeeded") == 1
    assert value(text, "trunkline_runs_active") == 0
    assert value(text, "trunkline_tool_calls_total", tool="todo_write", outcome="ok") == 1
    assert value(text, "trunkline_llm_calls_total", model="openai/scripted", outcome="ok") == 2
    assert value(text, "trunkline_llm_ttft_seconds_count", model="openai/scripted") == 1, (
        "a turn of tool calls only has no text"
    )
    assert value(text, "trunkline_llm_tokens_total", model="openai/scripted", direction="output") > 0
    assert value(text, "trunkline_steps_total", kind="llm", status="succeeded") == 2
    assert value(text, "trunkline_run_queue_wait_seconds_count", kind="agent") == 1
    assert run_id not in text


@pytest.mark.slow
async def test_a_killed_workers_second_attempt_is_in_the_same_trace(redis_url: str, tmp_path: Path) -> None:
    with receiving() as receiver:
        async with processes(redis_url, tmp_path, TRACING__ENDPOINT=receiver.url, TRACING__CONTENTS="true") as found:
            await found.worker("worker-1")
            run_id = await found.execute(SLOW)
            await until(lambda: receiver.named("execute_tool"), READY_SECONDS)
            found.running["worker-1"].kill()
            port = free_port()
            await found.worker("worker-2", TRUNKLINE__METRICS__WORKER_PORT=str(port))
            assert (await found.ended(run_id))["attempt"] == 2
            await until(lambda: receiver.named("invoke_agent"), 30)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                metrics = (await client.get("/metrics")).text
        [request] = receiver.named("POST /api/agent/{thread_id}/execute")
        [attempt] = receiver.named("invoke_agent")
        assert (attempt.trace, attempt.parent) == (request.trace, request.id)
        assert attempt.attributes["trunkline.attempt"] == 2
        [tool] = receiver.named("execute_tool")
        assert tool.trace == request.trace, "of the first attempt, whose own span died with it"
        assert "a secret plan" in tool.attributes["gen_ai.tool.call.arguments"]
        assert "A secret word" in receiver.named("chat")[-1].attributes["gen_ai.input.messages"]
        assert value(metrics, "trunkline_run_attempts_total", kind="agent", nth="further") == 1
        assert value(metrics, "trunkline_sweeper_findings_total", finding="dead_worker") == 1
        assert value(metrics, "trunkline_sweeper_findings_total", finding="orphaned_run") == 1
