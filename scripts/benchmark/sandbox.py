"""`python -m scripts.benchmark.sandbox`: what a sandbox costs, on a sandbox host of its own, with nothing around it.

A cold start lasts from a thread's first request to the result of its first command. Of each further command bash takes
a millisecond and a half.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from scripts.benchmark.meter import TICKS
from scripts.stack.ports import free_port
from shared.config import SandboxSettings, Settings
from shared.ids import new_thread_id
from workflow.sandbox.base import Command
from workflow.sandbox.local import LocalProvider, LocalSandbox

COLD_STARTS = 20
REPEATS = 200
START_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians, in milliseconds. `host_cpu` is the host's own for one command, without what runs inside."""

    cold_start: float
    command: float
    file_operation: float
    host_cpu: float

    def __str__(self) -> str:
        return (
            f"sandbox: cold start {self.cold_start:.1f} ms, each command {self.command:.1f} ms "
            f"(host {self.host_cpu:.1f} ms CPU), file operation {self.file_operation:.1f} ms"
        )


async def measure_sandbox(provider: LocalProvider, host_pid: int) -> Figures:
    async def first_command() -> None:
        await _run(await provider.acquire(new_thread_id(), None), "first")

    cold = await _time(first_command, COLD_STARTS)
    sandbox = await provider.acquire(new_thread_id(), None)
    await _run(sandbox, "warm-up")
    keys = iter(range(REPEATS))
    before = _own_cpu_ms(host_pid)
    command = await _time(lambda: _run(sandbox, f"command:{next(keys)}"), REPEATS)
    host_cpu = (_own_cpu_ms(host_pid) - before) / REPEATS
    return Figures(cold, command, await _time(lambda: sandbox.stat("/workspace"), REPEATS), host_cpu)


async def _time(action: Callable[[], Awaitable[object]], times: int) -> float:
    """The median of so many, in milliseconds."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        await action()
        took.append(1000 * (time.perf_counter() - began))
    return median(took)


async def _run(sandbox: LocalSandbox, step: str) -> None:
    async def ignore(_: str, __: str) -> None:
        pass

    await sandbox.exec(Command(f"run/{step}", 1, "true"), ignore)


def _own_cpu_ms(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def _host(data: Path) -> Iterator[tuple[Settings, int]]:
    url = f"http://127.0.0.1:{free_port()}"
    environ = {**os.environ, "TRUNKLINE__DATA": str(data), "TRUNKLINE__SANDBOX__HOST_URL": url, "LOG_LEVEL": "WARNING"}
    process = subprocess.Popen([sys.executable, "-m", "workflow.sandbox.host"], env=environ)
    settings = Settings(data=data, sandbox=SandboxSettings(host_url=url))
    deadline = time.monotonic() + START_SECONDS
    try:
        while not settings.sandbox_token_file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield settings, process.pid
    finally:
        process.terminate()
        process.wait(START_SECONDS)


async def _measure(settings: Settings, host_pid: int) -> Figures:
    provider = LocalProvider(settings)
    try:
        return await measure_sandbox(provider, host_pid)
    finally:
        await provider.close()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as data, _host(Path(data)) as (settings, pid):
        print(asyncio.run(_measure(settings, pid)))


if __name__ == "__main__":
    main()
