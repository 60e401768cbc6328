"""`python -m scripts.benchmark.neighbours`: how much a sandbox that behaves badly slows down the one beside it.

Printed for each kind of limits that this machine has: those of a host that root starts (control groups), and those of
one that an ordinary user starts.
"""

import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from scripts.benchmark.hosts import running_host
from scripts.benchmark.meter import quantile
from shared.config import Settings
from shared.ids import new_thread_id
from workflow.sandbox.base import Command, ExecResult
from workflow.sandbox.local import LocalProvider, LocalSandbox

COMMANDS = 200
LOUD = "loud"
BITES_SECONDS = 1.5  # after which an attack has reached its limits
# Limits that are met again and again.
SMALL: dict[str, Any] = {"memory_bytes": 256 * 1024**2, "disk_bytes": 256 * 1024**2}
ATTACKS = {
    "fork bomb": "f() { f | f & }; f; sleep 60",
    "hundred busy loops": "for i in $(seq 100); do while :; do :; done & done; sleep 60",
    "hundred sessions at work": "for i in $(seq 100); do setsid bash -c 'while :; do :; done' & done; sleep 60",
    "memory hog": "python3 -c 'x = bytearray(2_000_000_000)'",
    "disk filler": "rm -f fill*; for i in $(seq 100); do head -c 50M /dev/zero > fill$i; done; sleep 5",
}


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one command, in milliseconds."""

    p50: float
    p95: float

    def __str__(self) -> str:
        return f"{self.p50:6.1f} /{self.p95:7.1f} ms"


@dataclass(frozen=True, slots=True)
class Slowdown:
    """By one attack. `alone` was measured just before it."""

    attack: str
    alone: Latency
    beside: Latency

    def __str__(self) -> str:
        factors = f"{self.beside.p50 / self.alone.p50:5.1f} x /{self.beside.p95 / self.alone.p95:5.1f} x"
        return f"  beside a {self.attack:<25} {factors}   (alone {self.alone}, beside it {self.beside})"


class Neighbours:
    """A quiet sandbox, whose commands are timed, and a loud one."""

    def __init__(self, quiet: LocalSandbox, loud: LocalSandbox) -> None:
        self._quiet = quiet
        self._loud = loud
        self._keys = itertools.count()

    async def latency(self) -> Latency:
        """Raises RuntimeError where a command of the quiet one fails."""
        took = []
        for _ in range(COMMANDS):
            began = time.perf_counter()
            result = await self._run(self._quiet, "true")
            took.append(1000 * (time.perf_counter() - began))
            if result.exit_code != 0:
                raise RuntimeError(f"a neighbour's command failed: {result}")
        return Latency(quantile(took, 0.5), quantile(took, 0.95))

    @asynccontextmanager
    async def attacked(self, attack: str) -> AsyncIterator[None]:
        """The attack begins anew whenever a limit has ended it."""

        async def again_and_again() -> None:
            while True:
                await self._run(self._loud, attack)

        attacking = asyncio.create_task(again_and_again())
        await asyncio.sleep(BITES_SECONDS)
        try:
            yield
        finally:
            attacking.cancel()
            await asyncio.wait([attacking])
            await self._loud.cancel(LOUD, 1)

    async def _run(self, sandbox: LocalSandbox, command: str) -> ExecResult:
        async def ignore(_: str, __: str) -> None:
            pass

        run = LOUD if sandbox is self._loud else "quiet"
        return await sandbox.exec(Command(f"{run}/{next(self._keys)}", 1, command), ignore)


async def measure_neighbours(settings: Settings) -> AsyncIterator[Slowdown]:
    provider = LocalProvider(settings)
    try:
        quiet, loud = [await provider.acquire(new_thread_id(), None) for _ in range(2)]
        neighbours = Neighbours(quiet, loud)
        await neighbours.latency()
        for name, attack in ATTACKS.items():
            alone = await neighbours.latency()
            async with neighbours.attacked(attack):
                yield Slowdown(name, alone, await neighbours.latency())
    finally:
        await provider.close()


async def _print(settings: Settings) -> None:
    async for slowdown in measure_neighbours(settings):
        print(slowdown)


def print_neighbours() -> None:
    for user in (False, True) if os.geteuid() == 0 else (True,):
        with (
            tempfile.TemporaryDirectory(prefix="trunkline-bench-") as data,
            running_host(Path(data), as_user=user, **SMALL) as (settings, _),
        ):
            limits = httpx.get(f"{settings.sandbox.host_url}/health").json()["limits"]
            print(f"a command in a sandbox, p50 / p95; {limits}")
            asyncio.run(_print(settings))


if __name__ == "__main__":
    print_neighbours()
