"""What is measured: Trunkline as a user starts it, and beside it the floor, a client that asks the model itself."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import aiohttp
import orjson

from scripts.benchmark.model import expected
from scripts.stack.ports import free_port, is_free

READY_SECONDS = 120
ENDS = ("run.completed", "run.failed", "run.canceled")


@dataclass(frozen=True)
class Timing:
    """Seconds since the run was asked for: first event, first token, end. `tool`: how long the call took."""

    first_event: float
    first_token: float
    total: float
    tool: float


class Target(Protocol):
    name: str

    def processes(self) -> dict[str, int]:
        """Name -> pid of what does the work."""

    async def run(self, http: aiohttp.ClientSession, task: str, tokens: int, thread: str | None = None) -> Timing:
        """One whole run in a thread (None: a new one). Raises ValueError if its text is not exactly what it must be."""

    async def thread(self, http: aiohttp.ClientSession) -> str:
        """A new thread's id."""


class ModelServer:
    """The scripted model, as a process."""

    def __enter__(self) -> Self:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/v1"
        self.process = subprocess.Popen([sys.executable, "-P", "-m", "scripts.benchmark.model", str(port)])
        deadline = time.monotonic() + 10
        while not _listens(port):
            if time.monotonic() > deadline:
                raise RuntimeError("the scripted model does not start")
            time.sleep(0.02)
        deadline = time.monotonic() + READY_SECONDS
        while is_free("127.0.0.1", port):
            if time.monotonic() > deadline:
                raise RuntimeError("the scripted model did not start")
            time.sleep(0.05)
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Floor:
    """The two model calls, and nothing else."""

    name = "floor"

    def __init__(self, model: ModelServer) -> None:
        self._url = f"{model.url}/chat/completions"

    def processes(self) -> dict[str, int]:
        return {}

    async def thread(self, http: aiohttp.ClientSession) -> str:
        return ""

    async def run(self, http: aiohttp.ClientSession, task: str, tokens: int, thread: str | None = None) -> Timing:
        start = time.perf_counter()
        messages: list[dict[str, object]] = [{"role": "user", "content": task}]
        times: list[float] = []
        text = ""
        while True:
            calls: list[dict[str, object]] = []
            async for body in _data(http.post(self._url, json={"stream": True, "messages": messages})):
                for choice in orjson.loads(body)["choices"] if body != b"[DONE]" else ():
                    times.append(time.perf_counter() - start)
                    text += choice["delta"].get("content") or ""
                    calls += choice["delta"].get("tool_calls") or []
            if not calls:
                break
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            messages += [{"role": "tool", "tool_call_id": call["id"], "content": "3"} for call in calls]
        _check(text, tokens)
        return Timing(times[0], times[0], times[-1], 0)


class Trunkline:
    """`scripts/up` with its defaults, but without a limit of requests, on a data folder of its own."""

    name = "trunkline"

    def __init__(self, model: ModelServer, workers: int) -> None:
        self._model = model
        self._workers = workers
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        folder = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="trunkline-bench-")))
        self._data = folder / "data"
        command = [sys.executable, "-P", "-m", "scripts.stack", "--port", "0", "--workers", str(self._workers)]
        settings = {
            "TRUNKLINE__LLM__MODEL": "openai/scripted",
            "TRUNKLINE__LLM__BASE_URL": self._model.url,
            "TRUNKLINE__RATE_LIMIT__ENABLED": "false",
            "TRUNKLINE__SANDBOX__IDLE_SECONDS": "5",  # each run of some measurements makes one
        }
        with (folder / "up.log").open("wb") as log:
            self._stack = subprocess.Popen(
                [*command, "--data", str(self._data)], env={**os.environ, **settings}, stdout=log, stderr=log
            )
        self._resources.callback(self._stop)
        announced = self._data / "run" / "gateway.json"
        deadline = time.monotonic() + READY_SECONDS
        while not announced.exists():
            if self._stack.poll() is not None or time.monotonic() > deadline:
                self._resources.pop_all().close()
                raise RuntimeError(f"scripts/up did not get ready:\n{(folder / 'up.log').read_text()[-3000:]}")
            time.sleep(0.05)
        self._url = json.loads(announced.read_text())["url"]
        self._headers = {"authorization": f"Bearer {(self._data / 'key').read_text().strip()}"}
        return self

    def __exit__(self, *exc: object) -> None:
        self._resources.close()

    def _stop(self) -> None:
        self._stack.send_signal(signal.SIGINT)
        self._stack.wait(60)

    def processes(self) -> dict[str, int]:
        return {file.stem: int(file.read_text()) for file in sorted((self._data / "run").glob("*.pid"))}

    @property
    def redis_url(self) -> str:
        """Of its Valkey, by the configuration that it was started with."""
        lines = (self._data / "valkey" / "valkey.conf").read_text().splitlines()
        options = dict(line.split(maxsplit=1) for line in lines if " " in line)
        password = options["requirepass"].strip('"')
        return f"redis://:{password}@127.0.0.1:{options['port']}/0"

    async def post(self, http: aiohttp.ClientSession, path: str, body: object) -> dict[str, Any]:
        async with http.post(f"{self._url}{path}", json=body, headers=self._headers) as response:
            response.raise_for_status()
            return dict(await response.json())

    async def thread(self, http: aiohttp.ClientSession) -> str:
        return str((await self.post(http, "/api/agent/initiate", {}))["thread_id"])

    async def run(self, http: aiohttp.ClientSession, task: str, tokens: int, thread: str | None = None) -> Timing:
        start = time.perf_counter()
        thread = thread or await self.thread(http)
        url = f"{self._url}/api/agent/{thread}"
        async with http.post(f"{url}/execute", json={"task": task}, headers=self._headers) as response:
            run_id = (await response.json())["run_id"]
        first = token = call = tool = 0.0
        text = ""
        async for body in _data(http.get(f"{url}/stream", params={"run_id": run_id}, headers=self._headers)):
            event = orjson.loads(body)
            now = time.perf_counter() - start
            kind = event.get("type")
            first = first or (now if kind else 0)
            if kind == "agent.delta":
                token = token or now
                text += event["data"]["text"]
            elif kind == "tool.request":
                call = now
            elif kind == "tool.response":
                tool = now - call
            elif kind in ENDS:
                break
        _check(text, tokens)
        return Timing(first, token, time.perf_counter() - start, tool)


async def _data(request: "aiohttp.client._RequestContextManager") -> AsyncIterator[bytes]:
    """The data of each event of a stream."""
    async with request as response:
        rest = b""
        async for part in response.content.iter_any():
            *frames, rest = (rest + part).split(b"\n\n")
            for frame in frames:
                for line in frame.split(b"\n"):
                    if line.startswith(b"data:"):
                        yield line[5:].strip()


def _check(text: str, tokens: int) -> None:
    if text != expected(tokens):
        raise ValueError(f"the answer is not exact: {len(text) // 7} of {tokens} tokens, {text[:60]!r}")
