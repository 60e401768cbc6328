"""Gateway, worker, model server and Valkey as processes of their own, set up in the words of the source designs."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from redis import Redis

from shared.types import JSON
from tests.e2e.sources import functions, kinds
from tests.gateway.websockets import Client
from tests.support.ports import free_port
from tests.support.stack import ROOT, ends_with_us
from tests.support.valkey import Valkey

OPERATOR = "the-operators-key-of-these-tests"
BOUND_SECONDS = 60
READY_SECONDS = 120
ENDED = ("succeeded", "failed", "canceled")
RATE_LIMIT = 100  # source 002's default: a minute


@dataclass
class Stack:
    """`database`: variables that say where it is."""

    folder: Path
    database: dict[str, str]
    port: int = field(default_factory=free_port)
    model_port: int = field(default_factory=free_port)
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.valkey = Valkey(self.folder, durable=False)
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = {
            **os.environ,
            **self.database,
            "ENV": "local",
            "API_HOST": "127.0.0.1",
            "API_PORT": str(self.port),
            "LOG_LEVEL": "INFO",
            "AUTH_ENABLED": "true",
            "RATE_LIMIT_MAX_REQUESTS": str(RATE_LIMIT),
            "AGENTS_ENABLED": "true",
            "AGENT_MAX_CONCURRENCY": "10",
            "AGENT_CONTEXT_HISTORY_LIMIT": "100",
            "AGENT_MESSAGE_RETENTION_LIMIT": "1000",
            "AGENT_MESSAGE_ACK_WINDOW_SECONDS": "3600",
            "AGENT_REGISTRY_MODULES": kinds.__name__,
            "MGX_MAX_ROUNDS": "5",
            "MGX_CACHE_BACKEND": "memory",
            "TRUNKLINE__DATA": str(self.folder),
            "TRUNKLINE__REDIS__URL": self.valkey.url,
            "TRUNKLINE__AUTH__KEYS": f'["{OPERATOR}"]',
            "TRUNKLINE__WORKFLOW__MODULES": f'["{functions.__name__}"]',
            "TRUNKLINE__LLM__MODEL": "openai/scripted",
            "TRUNKLINE__LLM__BASE_URL": f"http://127.0.0.1:{self.model_port}/v1",
            "TRUNKLINE__LLM__API_KEY": "sk-test",
            "TRUNKLINE__LLM__BACKOFF_SECONDS": "0.05",
        }

    def start(self) -> None:
        self.valkey.start()
        self._start("model", "tests.support.model_server", "--port", str(self.model_port))
        self._start("gateway", "gateway")
        self.start_worker()

    def start_worker(self) -> None:
        """Returns when it can take runs."""
        logged = len(self.log("worker"))
        self._start("worker", "modem", "--name", "worker-1")
        self._wait("worker", lambda: "ready for" in self.log("worker")[logged:])
        self._wait("gateway", lambda: httpx.get(f"{self.url}/health/").json()["workers"]["alive"] == 1)

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()
        process.wait(10)

    def stop(self) -> None:
        for name in list(self.running):
            self.kill(name)
        self.valkey.kill()

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def redis(self) -> Redis:
        return Redis.from_url(self.valkey.url, decode_responses=True)

    def key(self, workspace: str | None = None, scopes: tuple[str, ...] = ("admin",)) -> JSON:
        """A new API key: its row's fields, `key` among them."""
        selected = {"X-Workspace-Id": workspace} if workspace else {}
        return self._post("/api/keys", selected, {"name": "a script", "scopes": list(scopes)})

    def workspace(self, slug: str) -> JSON:
        return self._post("/api/workspaces", {}, {"slug": slug, "name": slug})

    def _post(self, path: str, headers: dict[str, str], body: JSON) -> JSON:
        answer = httpx.post(f"{self.url}{path}", headers={"X-API-Key": OPERATOR, **headers}, json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def _start(self, name: str, *module: str) -> None:
        command = ends_with_us([sys.executable, "-m", *module])
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(command, cwd=ROOT, env=self.env, stdout=log, stderr=log)

    def _wait(self, name: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not _holds(condition):
            running = self.running[name].poll() is None and time.monotonic() < deadline
            assert running, f"{name} is not ready:\n{self.log(name)[-4000:]}"
            time.sleep(0.05)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except httpx.TransportError:
        return False


class Http(httpx.AsyncClient):
    """A client of the stack, with a key, that expects what it says."""

    def __init__(self, stack: Stack, key: str) -> None:
        super().__init__(base_url=stack.url, headers={"Authorization": f"Bearer {key}"}, timeout=BOUND_SECONDS)
        self.stack = stack

    async def expect(self, status: int, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The answer's JSON. `headers`: with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.request(method, path, json=body, headers=named)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text[:1000]}"
        return answer.json() if answer.content else None

    async def lines(self, method: str, path: str, body: Any = None) -> list[str]:
        """All that a stream says until its end; empty lines are left out."""
        headers = {"Accept": "text/event-stream"}
        async with self.stream(method, path, json=body, headers=headers) as answer:
            assert answer.status_code == 200, (await answer.aread()).decode()
            assert answer.headers["content-type"].startswith("text/event-stream")
            return [line async for line in answer.aiter_lines() if line]

    async def until(self, run_id: str, *statuses: str) -> JSON:
        """The run, once it has one of these statuses; any in which it has ended, where none is given."""
        async with asyncio.timeout(BOUND_SECONDS):
            while (run := await self.expect(200, "GET", f"/api/runs/{run_id}"))["status"] not in (statuses or ENDED):
                assert run["status"] not in ENDED, run
                await asyncio.sleep(0.05)
        return dict(run)

    @asynccontextmanager
    async def websocket(self, path: str) -> AsyncIterator[Client]:
        headers = {"Authorization": self.headers["Authorization"]}
        async with aiohttp.ClientSession() as session, session.ws_connect(self.stack.url + path, headers=headers) as ws:
            yield Client(ws)


def data_of(lines: Sequence[str]) -> list[JSON]:
    """What the `data:` lines of a stream say."""
    return [json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:")]
