"""`python -m scripts.benchmark.sandbox`: what a sandbox costs, on a sandbox host of its own, with nothing around it.

A cold start lasts from a thread's first request to the result of its first command. Of each further command bash takes
a millisecond and a half.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmark.hosts import running_host
from scripts.benchmark.meter import TICKS, quantile
from shared.config import Settings
from shared.ids import new_thread_id
from workflow.sandbox.base import Command
from workflow.sandbox.local import LocalProvider, LocalSandbox

COLD_STARTS = 20
REPEATS = 200

Times = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of each (p50, p95) in milliseconds. `host_cpu` is the host's own for one command, without what runs inside."""

    cold_start: Times
    command: Times
    file_operation: Times
    host_cpu: float

    def __str__(self) -> str:
        return (
            f"sandbox (p50 / p95): cold start {_ms(self.cold_start)}, each command {_ms(self.command)} "
            f"(host {self.host_cpu:.1f} ms CPU), file operation {_ms(self.file_operation)}"
        )


def _ms(times: Times) -> str:
    return f"{times[0]:.1f} / {times[1]:.1f} ms"


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


async def _time(action: Callable[[], Awaitable[object]], times: int) -> Times:
    """Of so many, one after the other."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        await action()
        took.append(1000 * (time.perf_counter() - began))
    return quantile(took, 0.5), quantile(took, 0.95)


async def _run(sandbox: LocalSandbox, step: str) -> None:
    async def ignore(_: str, __: str) -> None:
        pass

    await sandbox.exec(Command(f"run/{step}", 1, "true"), ignore)


def _own_cpu_ms(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / TICKS


async def _measure(settings: Settings, host_pid: int) -> Figures:
    provider = LocalProvider(settings)
    try:
        return await measure_sandbox(provider, host_pid)
    finally:
        await provider.close()


def print_sandbox() -> None:
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as data, running_host(Path(data)) as (settings, pid):
        print(asyncio.run(_measure(settings, pid)))


if __name__ == "__main__":
    print_sandbox()
