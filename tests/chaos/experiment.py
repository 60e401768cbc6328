"""One chaos run: a fleet, load, incidents by a seed, healing, and the verdict."""

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import psutil
from redis.exceptions import RedisError

from shared.ids import stream_position
from tests.chaos.checker import Checker, Seen
from tests.chaos.fleet import Fleet
from tests.chaos.history import History
from tests.chaos.load import Load
from tests.chaos.nemeses import Incident, Nemesis, schedule

FINISH_SECONDS = 120


@dataclass
class Verdict:
    """`takeovers`: seconds from a worker's kill until each of its runs went on; `handovers`: from a drain's release."""

    seed: int
    history: Path
    violations: list[str] = field(default_factory=list)
    runs: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    events: int = 0
    attempts: int = 0
    incidents: int = 0
    takeovers: list[float] = field(default_factory=list)
    handovers: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.runs} runs {self.statuses}, {self.attempts} attempts, {self.events} events, "
            f"{self.incidents} incidents",
            f"takeover after kill -9: {spread(self.takeovers)}",
            f"after a drain's release: {spread(self.handovers)}",
            f"{len(self.violations)} violations",
            *self.violations[:50],
        ]
        return "\n".join(lines)


def spread(seconds: Sequence[float]) -> str:
    if len(seconds) < 2:
        return f"{len(seconds)} measured {list(seconds)}"
    cuts = quantiles(seconds, n=100, method="inclusive")
    return f"{len(seconds)} measured, p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s, max {max(seconds):.2f} s"


@dataclass(frozen=True)
class Plan:
    """`incidents`: unset, those of the seed. `keep`: where the history goes; unset, only a failure's is kept."""

    seed: int
    seconds: float
    only: Sequence[str] = ()
    workers: int = 2
    gateways: int = 2
    sandbox: bool = True
    at_once: int = 12
    incidents: Sequence[Incident] = ()
    quiet: bool = False


async def run(plan: Plan) -> Verdict:
    """Leaves a folder with history and logs behind only where something was violated."""
    folder = Path(tempfile.mkdtemp(prefix=f"trunkline-chaos-{plan.seed}-"))
    folder.chmod(0o755)  # the sandbox host is another user
    history = History(folder / "history.jsonl", quiet=plan.quiet)
    verdict = Verdict(plan.seed, history.path)
    try:
        history.add("plan", plan=plan)
        async with Fleet(folder, history, plan.seed, plan.workers, plan.gateways, plan.sandbox) as fleet:
            await _chaos(fleet, plan, verdict)
        verdict.violations += [f"still running: {process}" for process in left_running(folder)]
        history.add("verdict", violations=verdict.violations)
    except BaseException:
        verdict.violations.append("the harness itself failed")
        raise
    finally:
        history.close()
        if verdict.violations:
            print(f"seed {plan.seed}; history and logs: {folder}", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return verdict


async def _chaos(fleet: Fleet, plan: Plan, verdict: Verdict) -> None:
    load = Load(fleet, plan.seed, at_once=plan.at_once)
    try:
        load.begin()
        verdict.incidents = await _bring(fleet, load, plan)
        await load.stop()
        await fleet.heal()
        fleet.history.add("healed, everything")
        late = await load.finish(FINISH_SECONDS)
        await fleet.whole()
    finally:
        await load.stop()
        await load.finish(0)
    for job in late:
        verdict.violations.append(f"{job.kind} {job.run_id or job.op}: its client still waits after healing")
    for job in load.jobs:
        if job.task and not job.task.cancelled() and (error := job.task.exception()):
            verdict.violations.append(f"{job.kind} {job.run_id or job.op}: {error!r}")
    verdict.violations += load.faults
    checker = Checker(fleet, load.jobs)
    verdict.violations += await checker.violations()
    _measure(fleet, checker.seen, verdict)


async def _bring(fleet: Fleet, load: Load, plan: Plan) -> int:
    """All incidents at their times; waits until each is over. Returns their number."""
    incidents = plan.incidents or schedule(plan.seed, plan.seconds, list(plan.only))
    nemesis, begun = Nemesis(fleet, load), time.monotonic()

    async def at_its_time(incident: Incident) -> None:
        await asyncio.sleep(max(0.0, begun + incident.at - time.monotonic()))
        try:
            await nemesis.bring(incident)
        except (RedisError, TimeoutError) as error:  # two incidents met
            fleet.history.add("cut short", of=incident, error=error)

    async with asyncio.TaskGroup() as group:
        for incident in incidents:
            group.create_task(at_its_time(incident))
        group.create_task(asyncio.sleep(plan.seconds))
    return len(incidents)


def _measure(fleet: Fleet, seen: Sequence[Seen], verdict: Verdict) -> None:
    verdict.runs = len(seen)
    for one in seen:
        verdict.statuses[one.run.status] = verdict.statuses.get(one.run.status, 0) + 1
        verdict.events += len(one.events)
        verdict.attempts += one.run.epoch
        for event, following in zip(one.events, one.events[1:], strict=False):
            drained = event["type"] == "run.interrupted" and event["data"]["reason"] == "drain"
            if drained and following["type"] == "run.resumed":
                verdict.handovers.append(_seconds(following["id"]) - _seconds(event["id"]))
    by_id = {one.run.id: one for one in seen}
    for death in fleet.deaths:
        for run_id in death.runs:
            resumed = [
                _seconds(event["id"])
                for event in (by_id[run_id].events if run_id in by_id else ())
                if event["type"] == "run.resumed" and _seconds(event["id"]) >= death.at
            ]
            with contextlib.suppress(ValueError):
                verdict.takeovers.append(min(resumed) - death.at)


def left_running(folder: Path) -> list[str]:
    """Processes that belong to the experiment, by their environment or their command line."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(folder) in " ".join([*process.cmdline(), *process.environ().values()]):
                found.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
    return found


def _seconds(stream_id: str) -> float:
    return stream_position(stream_id)[0] / 1000
