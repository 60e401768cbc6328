"""What goes wrong: fourteen nemeses, each a coroutine that brings one fault, and takes back what lasts."""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from tests.chaos.control import give_orders
from tests.chaos.fleet import Fleet
from tests.chaos.flows import VERSION
from tests.chaos.hooks import GATEWAY_POINTS, POINTS
from tests.chaos.load import Load
from tests.chaos.process import Process
from tests.support.proxy import Mode

PATIENCE_SECONDS = 15
"""For a failpoint to be reached."""
DISK_BYTES = 20_000
SHORT_OR_LONG = [5.0] * 6 + [60.0]
DETAILS = {
    "N2": [*POINTS, "mid_drain", "gateway"],
    "N4": ["load", "stuck"],
    "N5": ["refuse", "black_hole", "half_open", "delay"],
    "N8": ["429", "500", "hang", "cut"],
    "N9": ["", "late"],
    # Not "misconf" at random: after two in a row Valkey 9.1 may leave a hole in its log, and starts no more.
    "N11": ["exits"],
}


@dataclass(frozen=True)
class Incident:
    """What goes wrong when, in seconds from the start. `lasts`: for how long, where that is not its nature."""

    at: float
    nemesis: str
    target: int
    lasts: float = 0
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.nemesis} {self.detail} target={self.target} lasts={self.lasts:.1f}"


def schedule(seed: int, seconds: float, only: list[str] | None = None, *, pause_seconds: float = 5) -> list[Incident]:
    """The incidents of a run: the same for the same arguments. `only` names nemeses, N1 to N13; unset, all of them."""
    chance = random.Random(f"nemeses {seed}")
    names = [name for name in (only or NEMESES) if name in NEMESES] or list(NEMESES)
    incidents, at = [], 2.0
    while at < seconds:
        incidents.append(_draw(chance, at, chance.choice(names)))
        at += chance.expovariate(1 / pause_seconds)
    return incidents


def _draw(chance: random.Random, at: float, name: str) -> Incident:
    target = chance.randrange(1000)
    lasts = {
        "N3": chance.uniform(9, 20),
        "N5": chance.choice(SHORT_OR_LONG),
        "N6": chance.choice([0, 2, 10]),
        "N8": chance.uniform(3, 10),
        "N9": chance.uniform(10, 30),
        "N10": chance.uniform(10, 30),
        "N11": chance.uniform(2, 6),
        "N12": chance.choice(SHORT_OR_LONG),
    }
    return Incident(at, name, target, lasts.get(name, 0), chance.choice(DETAILS.get(name, [""])))


class Nemesis:
    """Brings incidents over a fleet. What two of them would do to one another is left out, and said."""

    def __init__(self, fleet: Fleet, load: Load) -> None:
        self._fleet = fleet
        self._load = load
        self.brought: list[tuple[float, float, Incident]] = []
        """From when to when each fault lasted."""
        self._valkey = asyncio.Lock()
        self._roll_outs = asyncio.Lock()

    async def bring(self, incident: Incident) -> None:
        begun = time.time()
        self._fleet.history.add("incident", of=incident)
        try:
            await NEMESES[incident.nemesis](self, incident)
        finally:
            self.brought.append((begun, time.time(), incident))
            self._fleet.history.add("healed", of=incident)

    async def kill_worker(self, incident: Incident) -> None:
        self._kill(self._worker(incident))

    async def kill_at_failpoint(self, incident: Incident) -> None:
        point = incident.detail
        process = self._worker(incident)
        if point == "gateway":
            process = self._gateway(incident)
            point = GATEWAY_POINTS[incident.target % len(GATEWAY_POINTS)]
        pid = process.pid
        self._order(process, pid=pid, point=point, passes=1 + incident.target % 3)
        if point == "mid_drain":
            await asyncio.sleep(0.2)
            process.tell(signal.SIGTERM)
        await _until(lambda: process.pid != pid, PATIENCE_SECONDS)
        self._order(process, pid=0, point="")

    async def stop_worker(self, incident: Incident) -> None:
        process = self._worker(incident)
        pid = process.tell(signal.SIGSTOP)
        try:
            await asyncio.sleep(incident.lasts)
        finally:
            if pid and process.pid == pid:
                process.tell(signal.SIGCONT)

    async def terminate_worker(self, incident: Incident) -> None:
        process = self._worker(incident)
        if incident.detail == "stuck":
            job = self._load.start("stuck")
            await _until(lambda: any(event.type == "tool.output" for event in job.events), PATIENCE_SECONDS)
            held = {worker.name: await self._fleet.held_by(worker.name) for worker in self._fleet.workers}
            process = next((w for w in self._fleet.workers if job.run_id in held[w.name]), process)
        pid = process.tell(signal.SIGTERM)
        await _until(lambda: process.pid != pid, 30)

    async def cut_worker(self, incident: Incident) -> None:
        processes = [*self._fleet.workers, *self._fleet.gateways]
        proxy = self._fleet.proxies[processes[incident.target % len(processes)].name]
        try:
            await proxy.set(cast("Mode", incident.detail))
            await asyncio.sleep(incident.lasts)
        finally:
            await proxy.set("pass")

    async def kill_valkey(self, incident: Incident) -> None:
        async with self._valkey:
            self._fleet.valkey_held_down = True
            try:
                self._fleet.valkey.kill()
                await asyncio.sleep(incident.lasts)
            finally:
                self._fleet.valkey_held_down = False
            await _until(lambda: self._fleet.valkey.running, 5)

    async def kill_gateway(self, incident: Incident) -> None:
        self._gateway(incident).tell(signal.SIGKILL)

    async def fail_model(self, incident: Incident) -> None:
        self._fleet.model.fault = incident.detail
        try:
            await asyncio.sleep(incident.lasts)
        finally:
            self._fleet.model.fault = None

    async def spoil_queue(self, incident: Incident) -> None:
        delay = 60 if incident.detail == "late" else 0
        try:
            for process in (*self._fleet.workers, *self._fleet.gateways):
                self._order(process, copies=5, drop=0.5, delay_seconds=delay)
            await asyncio.sleep(incident.lasts)
        finally:
            for process in (*self._fleet.workers, *self._fleet.gateways):
                self._order(process, copies=1, drop=0, delay_seconds=0)

    async def move_clock(self, incident: Incident) -> None:
        process = self._worker(incident)
        try:
            self._order(process, clock_seconds=3600 if incident.target % 2 else -3600)
            await asyncio.sleep(incident.lasts)
        finally:
            self._order(process, clock_seconds=0)

    async def fill_disk(self, incident: Incident) -> None:
        """With `appendfsync always` Valkey exits when it cannot write, with `everysec` it refuses writes (MISCONF)."""
        async with self._valkey:
            policy = "always" if incident.detail == "exits" else "everysec"
            try:
                await self._fleet.redis.config_set("appendfsync", policy)
                self._fleet.valkey.fill_disk(DISK_BYTES)
                await asyncio.sleep(incident.lasts)
            finally:
                self._fleet.valkey.free_disk()
            await asyncio.sleep(1.5)  # it tries to write what it kept once a second
            await self._fleet.redis.config_set("appendfsync", "always")

    async def block_loop(self, incident: Incident) -> None:
        process = self._worker(incident)
        pid = process.pid
        self._order(process, pid=pid, point="", block_seconds=incident.lasts)
        try:
            await _until(lambda: process.pid != pid, incident.lasts)
        finally:
            self._order(process, pid=0, block_seconds=0)

    async def roll_out(self, _: Incident) -> None:
        """Every worker is replaced by one of the next release, each once the one before is ready."""
        if self._roll_outs.locked():
            return
        async with self._roll_outs:
            for process in self._fleet.workers:
                process.environment[VERSION] = "2"
                await self._replace(process)

    async def _replace(self, process: Process) -> None:
        pid = process.tell(signal.SIGTERM)
        await _until(lambda: process.pid not in (0, pid), 40)
        async with asyncio.timeout(60):
            while not await self._fleet.is_ready(process):
                await asyncio.sleep(0.2)

    def _worker(self, incident: Incident) -> Process:
        return self._fleet.workers[incident.target % len(self._fleet.workers)]

    def _gateway(self, incident: Incident) -> Process:
        return self._fleet.gateways[incident.target % len(self._fleet.gateways)]

    def _kill(self, process: Process) -> None:
        self._fleet.note_kill(process.pid)
        process.tell(signal.SIGKILL)

    def _order(self, process: Process, **changes: Any) -> None:
        give_orders(self._fleet.folder, process.name, **changes)


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    """Until it holds, but no longer than so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        return


NEMESES: dict[str, Callable[..., Awaitable[None]]] = {
    "N1": Nemesis.kill_worker,
    "N2": Nemesis.kill_at_failpoint,
    "N3": Nemesis.stop_worker,
    "N4": Nemesis.terminate_worker,
    "N5": Nemesis.cut_worker,
    "N6": Nemesis.kill_valkey,
    "N7": Nemesis.kill_gateway,
    "N8": Nemesis.fail_model,
    "N9": Nemesis.spoil_queue,
    "N10": Nemesis.move_clock,
    "N11": Nemesis.fill_disk,
    "N12": Nemesis.block_loop,
    "N13": Nemesis.roll_out,
}
