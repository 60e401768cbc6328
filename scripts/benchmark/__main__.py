"""`scripts/bench`: W1 (runs one after the other) and W2 (runs at once), Trunkline beside the floor; then the parts.

Every run is a new thread, two model calls with one tool call between them, and an answer of 64 tokens, all of it
checked for order, loss and doubling. Figures of one run of this program can be compared, those of two machines cannot.
"""

import argparse
import asyncio
import gc
import time
from collections.abc import Sequence

import aiohttp
import uvloop

from scripts.benchmark.meter import cpu_seconds, memory_mb, quantile
from scripts.benchmark.neighbours import print_neighbours
from scripts.benchmark.sandbox import print_sandbox
from scripts.benchmark.subscribers import print_subscribers
from scripts.benchmark.targets import Floor, ModelServer, Target, Timing, Trunkline

TOKENS = 64
REFUSED = f"[[tool:bash {{}}]] [[tokens:{TOKENS}]]"  # a call without its command: answered without a sandbox
IN_SANDBOX = f'[[tool:bash {{"command": "true"}}]] [[tokens:{TOKENS}]]'
WARM_UP_RUNS = 5
WARM_UP_SECONDS = 2.0


class Meter:
    """CPU seconds of everything that takes part, over a with-block."""

    def __init__(self, target: Target, model: ModelServer) -> None:
        self._pids = {**target.processes(), "model": model.process.pid}

    def __enter__(self) -> "Meter":
        gc.collect()
        self._before = self._now()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds = time.perf_counter() - self._start
        self.cpu = {name: seconds - self._before[name] for name, seconds in self._now().items()}

    def _now(self) -> dict[str, float]:
        return {**{name: cpu_seconds(pid) for name, pid in self._pids.items()}, "client": time.process_time()}

    def shares(self, runs: int) -> str:
        """CPU milliseconds a run by process; the servers' sum first."""
        if not runs:
            return ""
        ms = {name: 1000 * seconds / runs for name, seconds in self.cpu.items()}
        servers = [name for name in ms if name not in ("model", "client")]
        each = "  ".join(f"{name} {value:.1f}" for name, value in ms.items())
        return f"{sum(ms[name] for name in servers):5.1f} ms CPU a run   ({each})"


def ms(values: Sequence[float]) -> str:
    return f"{1000 * quantile(values, 0.5):7.1f} /{1000 * quantile(values, 0.95):7.1f}"


class Bench:
    """Measures one target."""

    def __init__(self, target: Target, model: ModelServer, http: aiohttp.ClientSession) -> None:
        self._target = target
        self._model = model
        self._http = http

    async def one_by_one(self, label: str, task: str, runs: int) -> None:
        for _ in range(WARM_UP_RUNS):
            await self._run(task)
        with Meter(self._target, self._model) as meter:
            found = [await self._run(task) for _ in range(runs)]
        print(
            f"W1 {label:<26} first event {ms([t.first_event for t in found])}   first token "
            f"{ms([t.first_token for t in found])}   total {ms([t.total for t in found])}   {meter.shares(runs)}"
        )

    async def at_once(self, label: str, task: str, loops: int, seconds: float) -> None:
        found: list[Timing] = []
        errors: list[str] = []
        stopping = asyncio.Event()

        async def keep_running() -> None:
            while not stopping.is_set():
                try:
                    found.append(await self._run(task))
                except (ValueError, KeyError, aiohttp.ClientError) as error:
                    errors.append(f"{type(error).__name__}: {error}")
                    await asyncio.sleep(0.2)

        running = [asyncio.create_task(keep_running()) for _ in range(loops)]
        await asyncio.sleep(WARM_UP_SECONDS)
        with Meter(self._target, self._model) as meter:
            before = len(found)
            await asyncio.sleep(seconds)
            during = found[before:]
        stopping.set()
        await asyncio.gather(*running)
        wrong = f"   {len(errors)} ERRORS, e.g. {errors[0][:120]}" if errors else ""
        print(
            f"W2 {label:<22} {loops:>3} {len(during) / meter.seconds:8.1f} runs/s   "
            f"total {ms([t.total for t in during] or [0])}   {meter.shares(len(during))}{wrong}"
        )

    async def sandbox(self, runs: int) -> None:
        """What the first command of a thread takes, which makes its sandbox, and what each further one takes."""
        cold = [await self._run(IN_SANDBOX) for _ in range(runs)]
        thread = await self._target.thread(self._http)
        await self._run(IN_SANDBOX, thread)
        warm = [await self._run(IN_SANDBOX, thread) for _ in range(runs)]
        print(f"a thread's first command  {ms([t.tool for t in cold])}   (its sandbox is made)")
        print(f"each further command      {ms([t.tool for t in warm])}")

    async def _run(self, task: str, thread: str | None = None) -> Timing:
        return await self._target.run(self._http, task, TOKENS, thread)


async def measure(options: argparse.Namespace) -> None:
    async def both(target: Target, label: str, task: str) -> Bench:
        bench = Bench(target, model, http)
        await bench.one_by_one(label, task, options.runs)
        for loops in options.at_once:
            await bench.at_once(label, task, loops, options.seconds)
        return bench

    connector, patience = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=patience) as http:
        with ModelServer() as model:
            print("times: p50 / p95 in ms\n")
            await both(Floor(model), "floor", REFUSED)
            with Trunkline(model, options.workers) as target:
                await both(target, "trunkline, refused call", REFUSED)
                bench = await both(target, "trunkline, in a sandbox", IN_SANDBOX)
                await bench.sandbox(options.runs)
                print(
                    "memory: "
                    + "  ".join(f"{name} {memory_mb(pid):.0f} MB" for name, pid in target.processes().items())
                )


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=50, help="of W1")
    parser.add_argument("--seconds", type=float, default=20, help="of each W2, and of subscribers' silence and noise")
    parser.add_argument("--at-once", type=int, nargs="+", default=[8, 32, 100], help="loops of W2")
    parser.add_argument("--streams", type=int, default=5000, help="of subscribers")
    parser.add_argument("--sockets", type=int, default=1000, help="of subscribers")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--sandboxes", action="store_true", help="only what sandboxes cost, alone and beside bad ones")
    only.add_argument("--subscribers", action="store_true", help="only what event streams and WebSockets cost")
    options = parser.parse_args()
    if not (options.sandboxes or options.subscribers):
        uvloop.run(measure(options))
    if not options.subscribers:
        print_sandbox()
        print_neighbours()
    if not options.sandboxes:
        print_subscribers(options.streams, options.sockets, options.seconds)


if __name__ == "__main__":
    main()
