"""One chaos run: a fleet, load, incidents by a seed, healing, and the verdict."""

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import psutil
from redis.exceptions import RedisError

from shared.ids import stream_position
from tests.chaos.checker import Checker, Seen
from tests.chaos.fleet import Death, Fleet
from tests.chaos.history import History
from tests.chaos.load import Load
from tests.chaos.nemeses import Incident, Nemesis, schedule

FINISH_SECONDS = 120
START_SECONDS = 20
"""For a worker to be ready on a busy machine."""


@dataclass
class Verdict:
    """`takeovers`: seconds from a worker's kill until each of its runs went on, `crowded`: beside other faults;
    `handovers`: from a drain's release.
    """

    seed: int
    history: Path
    violations: list[str] = field(default_factory=list)
    runs: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    events: int = 0
    attempts: int = 0
    incidents: int = 0
    takeovers: list[float] = field(default_factory=list)
    crowded: list[float] = field(default_factory=list)
    handovers: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.runs} runs {self.statuses}, {self.attempts} attempts, {self.events} events, "
            f"{self.incidents} incidents",
            f"takeover after kill -9: {spread(self.takeovers)}",
            f"the same, beside other faults: {spread(self.crowded)}",
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
    nemesis = Nemesis(fleet, load)
    try:
        load.begin()
        incidents = plan.incidents or schedule(plan.seed, plan.seconds, list(plan.only))
        verdict.incidents = len(incidents)
        await _bring(nemesis, incidents, fleet, plan.seconds)
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
    _measure(checker.seen, verdict)
    for death, resumed in _takeovers(fleet, checker.seen):
        crowd = verdict.crowded if _is_crowded(death, resumed, nemesis) else verdict.takeovers
        crowd.append(resumed - death.at)


async def _bring(nemesis: Nemesis, incidents: Sequence[Incident], fleet: Fleet, seconds: float) -> None:
    """All incidents at their times; waits until each is over."""
    begun = time.monotonic()

    async def at_its_time(incident: Incident) -> None:
        await asyncio.sleep(max(0.0, begun + incident.at - time.monotonic()))
        try:
            await nemesis.bring(incident)
        except (RedisError, TimeoutError) as error:  # two incidents met
            fleet.history.add("cut short", of=incident, error=error)

    async with asyncio.TaskGroup() as group:
        for incident in incidents:
            group.create_task(at_its_time(incident))
        group.create_task(fleet.watched(seconds))


def _measure(seen: Sequence[Seen], verdict: Verdict) -> None:
    verdict.runs = len(seen)
    for one in seen:
        verdict.statuses[one.run.status] = verdict.statuses.get(one.run.status, 0) + 1
        verdict.events += len(one.events)
        verdict.attempts += one.run.epoch
        for event, following in zip(one.events, one.events[1:], strict=False):
            drained = event["type"] == "run.interrupted" and event["data"]["reason"] == "drain"
            if drained and following["type"] == "run.resumed":
                verdict.handovers.append(_seconds(following["id"]) - _seconds(event["id"]))


def _takeovers(fleet: Fleet, seen: Sequence[Seen]) -> Iterator[tuple[Death, float]]:
    """For each run that a killed worker had: when it went on."""
    events = {one.run.id: one.events for one in seen}
    for death in fleet.deaths:
        for run_id in death.runs:
            claims = [_seconds(e["id"]) for e in events.get(run_id, ()) if e["type"] == "run.resumed"]
            later = [claim for claim in claims if claim >= death.at]
            if later:
                yield death, later[0]


def _is_crowded(death: Death, resumed: float, nemesis: Nemesis) -> bool:
    """Whether another fault fell into the takeover, or had another worker still starting."""
    return any(
        begun < resumed and ended > death.at - START_SECONDS
        for begun, ended, incident in nemesis.brought
        if not (incident.nemesis in ("N1", "N2") and begun - 1 <= death.at <= ended + 1)
    )


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
