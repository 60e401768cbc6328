"""A whole stack as a user starts it (`scripts/up`), on a free port and a new folder, with the scripted model."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.ports import free_port
from tests.support.waiting import until

__all__ = ["until"]

ROOT = Path(__file__).resolve().parents[2]
CHILD = ROOT / "scripts" / "stack" / "child.py"
READY = b"Trunkline is ready"
READY_SECONDS = 120
DOWN_SECONDS = 90  # above what the supervisor may give its services together, stopped ones (SIGSTOP) too


class Stack:
    """`async with Stack(workers=2) as stack:`. `client` is an HTTP client with the stack's key."""

    def __init__(self, *, workers: int = 1, env: Mapping[str, str] | None = None) -> None:
        self.workers = workers
        self.folder = tempfile.TemporaryDirectory(prefix="trunkline-test-")
        self.data = Path(self.folder.name) / "data"
        self.port = free_port()
        self.model_port = free_port()
        self.log = Path(self.folder.name) / "up.log"
        self.env = {
            **os.environ,
            "TRUNKLINE__LLM__MODEL": "openai/scripted",
            "TRUNKLINE__LLM__BASE_URL": f"http://127.0.0.1:{self.model_port}/v1",
            "TRUNKLINE__LLM__API_KEY": "sk-test",
            "TRUNKLINE__RATE_LIMIT__ENABLED": "false",
            **(env or {}),
        }

    async def __aenter__(self) -> Self:
        self._model = subprocess.Popen(
            [sys.executable, "-m", "tests.support.model_server", "--port", str(self.model_port)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        try:
            await self.up()
        except BaseException:
            await self.__aexit__(*sys.exc_info())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.down()
        finally:
            self._model.terminate()
            self._model.wait(10)
            if error is not None:
                print(self.log.read_text()[-20_000:])
            self.folder.cleanup()

    async def up(self) -> None:
        """Also for starting it again on the same data."""
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", timeout=30, limits=httpx.Limits(max_connections=500)
        )
        command = ["bash", "scripts/up", "--port", str(self.port), "--data", str(self.data)]
        with self.log.open("ab") as log:
            before = log.tell()
            self._main = subprocess.Popen(
                [*command, "--workers", str(self.workers)], cwd=ROOT, env=self.env, stdout=log, stderr=log
            )
        await until(lambda: READY in self.log.read_bytes()[before:] or self._main.poll() is not None, READY_SECONDS)
        assert self._main.poll() is None, self.log.read_text()[-4000:]
        self.client.headers["Authorization"] = f"Bearer {(self.data / 'key').read_text().strip()}"

    async def down(self) -> int:
        """Ctrl-C. Returns the exit code."""
        await self.client.aclose()
        self.tell(signal.SIGINT)
        try:
            return await asyncio.to_thread(self._main.wait, DOWN_SECONDS)
        except subprocess.TimeoutExpired:
            self.tell(signal.SIGKILL)  # its services go with it
            raise

    def tell(self, number: signal.Signals) -> None:
        """To the supervisor, if it runs."""
        if self._main.poll() is None:
            self._main.send_signal(number)

    def pid(self, name: str) -> int:
        return int((self.data / "run" / f"{name}.pid").read_text())

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def logged(self, name: str) -> str:
        """What the service has written, under all its pids."""
        log = self.data / "logs" / f"{name}.log"
        return log.read_text() if log.exists() else ""

    def redis_url(self) -> str:
        """Of its Valkey, for what no client of the gateway can do or see."""
        config = dict(
            line.split(" ", 1) for line in (self.data / "valkey" / "valkey.conf").read_text().splitlines() if line
        )
        return f"redis://:{config['requirepass']}@127.0.0.1:{config['port']}/0"

    async def thread(self) -> str:
        answer = await self.client.post("/api/agent/initiate", json={})
        return str(_json(answer)["thread_id"])

    async def execute(self, thread_id: str, task: str, **fields: Any) -> str:
        answer = await self.client.post(f"/api/agent/{thread_id}/execute", json={"task": task, **fields})
        return str(_json(answer)["run_id"])

    async def run(self, run_id: str) -> dict[str, Any]:
        return _json(await self.client.get(f"/api/runs/{run_id}"))

    async def steps(self, run_id: str) -> list[dict[str, Any]]:
        return list(_json(await self.client.get(f"/api/runs/{run_id}/steps"))["items"])

    def workspace(self, thread_id: str) -> Path:
        return self.data / "workspaces" / thread_id


def _json(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, f"{answer.status_code} {answer.text[:500]}"
    return dict(json.loads(answer.content))


def ends_with_us(command: Sequence[str]) -> list[str]:
    """The command, which the kernel kills when this process dies, however it dies."""
    return [sys.executable, "-I", "-S", str(CHILD), str(int(signal.SIGKILL)), str(os.getpid()), *command]
