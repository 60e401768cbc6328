"""A real sandbox host in a process of its own, and shorthand for talking to it."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from shared.config import SandboxSettings, Settings
from shared.ids import new_thread_id
from tests.support.ports import free_port
from workflow.sandbox import cgroups
from workflow.sandbox.base import Command, ExecResult, ExecStatus, SandboxError, Task
from workflow.sandbox.local import LocalProvider, LocalSandbox
from workflow.sandbox.usage import descendants

ROOT = Path(__file__).resolve().parents[3]
USER_UID = 64322  # an ordinary user, who is not the sandbox user
START_SECONDS = 30


class Host:
    """`with Host("root") as host:`, entered once it is `ready`: it answers, unless said otherwise.

    The data folder is a mkdtemp, 0700, of the user who starts the host.
    """

    def __init__(
        self,
        mode: str,
        environ: dict[str, str] | None = None,
        *,
        folder: Path | None = None,
        ready: Callable[["Host"], bool] = lambda host: host.health() is not None,
        **sandbox: Any,
    ) -> None:
        self.mode = mode
        self._ready = ready
        self.data = Path(tempfile.mkdtemp(prefix="trunkline-sandbox-", dir=folder))
        if mode == "user" and os.geteuid() == 0:
            os.chown(self.data, USER_UID, USER_UID)
        url = f"http://127.0.0.1:{free_port()}"
        self.settings = Settings(data=self.data, sandbox=SandboxSettings(host_url=url, **sandbox))
        self._environ = {
            **os.environ,
            **(environ or {}),
            "TRUNKLINE__DATA": str(self.data),
            "TRUNKLINE__SANDBOX__HOST_URL": url,
            **{f"TRUNKLINE__SANDBOX__{name.upper()}": _variable(value) for name, value in sandbox.items()},
        }
        self.log = self.data.with_suffix(".log")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            log = self.log.read_text()
            if error:
                sys.stderr.write(log)
            shutil.rmtree(self.data)
            self.log.unlink()
            self._remove_group_folder()
        late = [line for line in log.splitlines() if "imported too late" in line]
        assert not late, late

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.workflow.sandbox.run_host", self.mode, str(USER_UID)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=self._environ, stderr=log)
        wait_until(lambda: self.process.poll() is not None or self._ready(self), START_SECONDS)
        assert self.process.poll() is None, self.log.read_text()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def health(self) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = httpx.get(f"{self.settings.sandbox.host_url}/health", timeout=5).json()
        except httpx.TransportError:
            return None
        return answer

    def processes(self) -> dict[int, str]:
        """Below the host: pid -> command line."""
        found = {}
        for pid in descendants(self.process.pid):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                found[pid] = line.replace(b"\0", b" ").decode(errors="replace")
        return found

    def _remove_group_folder(self) -> None:
        """The host cannot: what it was made in belongs to root."""
        name = f"trunkline-{self.settings.sandbox.uid}.{self.process.pid}"
        deadline = time.monotonic() + 20
        trees = [Path("/sys/fs/cgroup", controller) for controller in ("memory", "cpu")]
        while folders := [Path(at) for tree in trees for at, _, _ in os.walk(tree) if Path(at).name == name]:
            assert time.monotonic() < deadline, f"processes are left in {folders}"
            for folder in folders:
                cgroups.sweep(folder)
            time.sleep(0.02)


class Box:
    """A sandbox, and what one run of an agent does in it."""

    def __init__(self, sandbox: LocalSandbox, thread_id: str) -> None:
        self.sandbox = sandbox
        self.run_id = f"{thread_id}.run"
        self.shown = ""
        self._numbers = itertools.count()

    def key(self) -> str:
        return f"{self.run_id}/tool:{next(self._numbers)}"

    async def show(self, _: str, text: str) -> None:
        self.shown += text

    async def run(self, command: str, **fields: Any) -> ExecResult:
        return await self.sandbox.exec(Command(fields.pop("key", self.key()), 1, command, **fields), self.show)

    async def kill(self, background: ExecResult) -> Task:
        return await self.sandbox.kill_task(str(background.task_id), self.key(), 1)

    async def end_tasks(self) -> None:
        """Whatever epochs there were."""
        with contextlib.suppress(SandboxError):  # it may be gone, or stopped
            for task in await self.sandbox.tasks():
                if task.status is ExecStatus.RUNNING:
                    await self.sandbox.kill_task(task.task_id, self.key(), 10**6)

    async def text(self, command: str, **fields: Any) -> str:
        """What it prints."""
        result = await self.run(command, **fields)
        return result.output.head + result.output.tail


async def new_box(provider: LocalProvider) -> Box:
    thread_id = new_thread_id()
    return Box(await provider.acquire(thread_id, None), thread_id)


def _variable(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list) else str(value)


def stopped_sandboxds(host: Host) -> list[int]:
    pids = [pid for pid, line in host.processes().items() if "sandboxd.pyz" in line]
    return [pid for pid in pids if ") T " in Path(f"/proc/{pid}/stat").read_text()]


def wait_until(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.02)
