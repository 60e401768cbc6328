"""One attempt of one run, from claim to release: read this first.

    claim -> replay the journal -> go on from the first unfinished step -> release

The flow (an agent's loop, a durable function) runs as a task beside the reasons to stop it: somebody canceled the run,
the worker drains, its lease is lost, or nothing is left to do but to wait. Whatever happens, the store decides by the
epoch who may write.
"""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from shared.channels import Channels
from shared.errors import AppError, ErrorCode
from shared.events.outside import Outside
from shared.ids import thread_of
from shared.log import bound
from shared.snapshots.snapshots import Snapshots
from shared.tasks import TimeLimit, cancel
from shared.threads.attempt import Attempt, Fenced, GoOn, Lacking
from shared.threads.store import ThreadStore
from shared.threads.types import Holding, Run
from shared.types import JSON, Runnable, RunStatus
from workflow.activity import Activity
from workflow.agent.agent import run_agent
from workflow.agent.budget import account_of, late, seconds_limit
from workflow.engine.function import run_function
from workflow.engine.journal import culprits, failure
from workflow.engine.remembered import Remembered
from workflow.engine.step import Step
from workflow.files import Files
from workflow.runtime import Runtime
from workflow.sandbox.base import SandboxError, SandboxFenced, SandboxUnavailable

CLEAN_UP_SECONDS = 60.0
SNAPSHOT_PATIENCE = 30.0
LEFT_SECONDS = (0.1, 0.5)

log = logging.getLogger("trunkline.runner")


@dataclass(frozen=True, slots=True)
class Signals:
    """What a worker tells all its runs. Made on the loop that waits for them."""

    draining: asyncio.Event = field(default_factory=asyncio.Event)
    """Start no new step."""
    out_of_time: asyncio.Event = field(default_factory=asyncio.Event)
    """Stop in the middle of a step: the run is given back."""


@dataclass(frozen=True, slots=True)
class _Held:
    attempt: Attempt
    worker: str
    dropped: asyncio.Event


class Runner:
    """The runs that one worker executes. All methods belong to its event loop."""

    def __init__(self, outside: Outside, runtime: Runtime) -> None:
        self._store = outside.store
        self._outside = outside
        snapshots = Snapshots(
            runtime.redis, outside.store.payloads, runtime.settings.snapshots, patience_seconds=SNAPSHOT_PATIENCE
        )
        self._files = Files(snapshots, outside.store, runtime.sandboxes, runtime.settings.snapshots)
        self._runtime = replace(runtime, sandboxes=self._files)
        self._held: dict[str, _Held] = {}
        self._remembered = Remembered()
        self._activity = Activity(Channels(runtime.redis, runtime.settings.stream))

    async def close(self) -> None:
        """Waits a little for what is kept and told of the runs that have ended."""
        await self._activity.close()
        await self._files.close()

    def running(self) -> list[str]:
        return list(self._held)

    def cancel(self, run_id: str) -> None:
        """Somebody asked to cancel a run."""
        if run_id in self._held:
            self._held[run_id].attempt.canceled.set()

    def drop(self, worker: str) -> None:
        """The lease under this name is lost: its runs are somebody else's. Stop them, and write nothing."""
        for held in self._held.values():
            if held.worker == worker:
                held.dropped.set()

    async def execute(self, run_id: str, worker: str, signals: Signals) -> str | None:
        """One attempt, if the run is to be had. Returns the run to ring for, if any."""
        attempt = None
        with bound(run_id=run_id, thread_id=thread_of(run_id)):
            try:
                attempt = await self._claim(run_id, worker)
                return None if attempt is None else await self._hold(attempt, worker, signals)
            except (Fenced, SandboxFenced) as fenced:
                log.warning("run %s went on elsewhere: %s", run_id, fenced)
                return None
            except Exception:
                # Claimed by a worker that lives but does not hold it, a run would be stuck for ever.
                log.exception("run %s: the attempt broke off", run_id)
                following = await take_from(worker, run_id, self._store, self._runtime)
                # What could not be claimed is rung for by the sweeper, later: at once would be in a loop.
                return None if attempt is None and following == run_id else following

    async def _claim(self, run_id: str, worker: str) -> Attempt | None:
        """While a release rolls out, a run goes to a worker that has its function in its version, if there is one."""
        known = self._remembered.take(run_id)
        claim = partial(self._store.claim, run_id, worker, secrets.token_hex(8), known=known)
        try:
            return await claim(functions=self._runtime.functions.had)
        except Lacking as lacking:
            if str(lacking) in await self._outside.fleet.functions():
                log.info("run %s is left to a worker that has %s", run_id, lacking)
                await asyncio.sleep(random.uniform(*LEFT_SECONDS))  # noqa: S311 - no secret
                await self._outside.ring(run_id)  # it may be this worker again that hears of it
                return None
            return await claim()

    async def _hold(self, attempt: Attempt, worker: str, signals: Signals) -> str | None:
        run_id, observer = attempt.run.id, self._runtime.observer
        held = self._held[run_id] = _Held(attempt, worker, asyncio.Event())
        self._activity.tell(attempt.run, RunStatus.RUNNING)
        try:
            with bound(**_request_of(attempt.run)), observer.attempt(attempt):
                following = await self._attempt(held, signals)
            if not (held.dropped.is_set() or signals.draining.is_set()):
                self._files.keep(attempt.thread, run_id)
            return following
        finally:
            if self._held.get(run_id) is held:
                del self._held[run_id]
            if attempt.left:
                self._activity.tell(attempt.run, attempt.left)

    async def _attempt(self, held: _Held, signals: Signals) -> str | None:
        attempt = held.attempt
        step = Step(attempt, signals.draining, self._outside, self._runtime.observer)
        if attempt.canceled.is_set():
            return await self._end_canceled(attempt, step)
        flow = asyncio.create_task(_flow(attempt, step, self._runtime))
        stops = (attempt.canceled, signals.out_of_time, held.dropped)
        parked = False
        while not parked and not flow.done() and not any(stop.is_set() for stop in stops):
            await _first_of(flow, (*stops, step.parking.idle))
            if step.parking.drained and step.parking.idle.is_set():
                break
            parked = step.parking.idle.is_set() and not flow.done() and await _park(attempt, step)
        broken_off = not flow.done()
        step.journal.close()
        await cancel([flow])
        await asyncio.gather(flow, return_exceptions=True)  # read, so that nobody is told that it never was
        if parked:
            self._remembered.keep(attempt)
            return None
        if attempt.fenced:
            raise attempt.fenced
        if held.dropped.is_set():
            return None
        # What a flow makes of being stopped is not its outcome: it may catch anything.
        if broken_off or step.parking.drained:
            return await self._end_stopped(attempt, step)
        return await self._end(attempt, step, flow)

    async def _end_stopped(self, attempt: Attempt, step: Step) -> str | None:
        if attempt.canceled.is_set():
            return await self._end_canceled(attempt, step)
        return await attempt.give_back("drain")

    async def _end(self, attempt: Attempt, step: Step, flow: asyncio.Task[JSON]) -> str | None:
        match asyncio.CancelledError() if flow.cancelled() else flow.exception():
            case None:
                return await self._end_succeeded(attempt, step, flow.result())
            case Fenced() | SandboxFenced() as fenced:
                raise fenced
            case _ if attempt.canceled.is_set():
                return await self._end_canceled(attempt, step)
            case AppError() as error:
                return await self._end_failed(attempt, step, error)
            case crash:
                incident = secrets.token_hex(4)
                log.error("run %s crashed (incident %s)", attempt.run.id, incident, exc_info=crash)
                detail = f"An internal error ended the run. The worker's log has it as incident {incident}."
                return await self._end_failed(attempt, step, AppError(ErrorCode.RUN_CRASHED, detail), crash)

    async def _end_succeeded(self, attempt: Attempt, step: Step, result: JSON) -> str | None:
        try:
            return await self._over(attempt, RunStatus.SUCCEEDED, result, result, taken=attempt.taken)
        except GoOn:
            if attempt.canceled.is_set():
                return await self._end_canceled(attempt, step)
            return await attempt.give_back("message")
        except AppError as error:  # the output is too large, or its store is away
            return await self._end_failed(attempt, step, error)

    async def _end_failed(
        self, attempt: Attempt, step: Step, cause: AppError, crash: BaseException | None = None
    ) -> str | None:
        error = failure(cause)
        log.warning("run %s failed: %s", attempt.run.id, error["detail"])
        await step.waits.cancel_children()
        await end_processes(attempt.run, self._store, self._runtime)
        try:
            fields = {"error": error, "culprits": culprits(crash or cause)}
            return await self._over(attempt, RunStatus.FAILED, {"error": error}, fields)
        except GoOn:
            return await self._end_canceled(attempt, step)

    async def _end_canceled(self, attempt: Attempt, step: Step) -> str | None:
        """The run ends after its children have: until then it waits for them."""
        while going_on := await step.waits.cancel_children():
            answered = await attempt.wait(going_on, ending=True)
            if not answered:
                return None
            for record in answered:
                step.journal.learn(record)
        await end_processes(attempt.run, self._store, self._runtime)
        return await self._over(attempt, RunStatus.CANCELED, {"reason": "canceled"}, {})

    async def _over(
        self, attempt: Attempt, status: RunStatus, data: JSON, fields: JSON, *, taken: int = 0
    ) -> str | None:
        following = await attempt.end(status, data, fields, taken=taken)
        self._runtime.observer.ended(attempt, status)
        return following


def _request_of(run: Run) -> dict[str, str]:
    """For the log: the request that asked for the run."""
    return {"request_id": run.correlation.request_id} if run.correlation.request_id else {}


async def _flow(attempt: Attempt, step: Step, runtime: Runtime) -> JSON:
    """What the run executes, to its end. Returns the data of `run.completed`."""
    limit = seconds_limit(attempt.run, runtime.settings)
    try:
        async with TimeLimit(limit - attempt.run.ran_seconds) as clock:
            match attempt.run.runnable_type:
                case Runnable.AGENT:
                    result = await run_agent(attempt, step, runtime)
                case Runnable.FUNCTION:
                    result = await run_function(attempt, step, runtime.functions)
                case kind:  # of a gateway of a newer release
                    detail = f"This worker's release runs no {kind}s. Retry when all workers have a newer one."
                    raise AppError(ErrorCode.NOT_IMPLEMENTED, detail)
    except (AppError, TimeoutError) as error:
        if not clock.expired():
            raise
        raise late(attempt.run, limit) from error
    step.journal.check_replayed()
    return result


async def _park(attempt: Attempt, step: Step) -> bool:
    """Whether the run now waits without this attempt. Otherwise a wait was answered, or there is a reason to stop."""
    try:
        answered = await attempt.wait(step.parking.waiting)
    except GoOn:
        step.parking.idle.clear()
        return False
    step.parking.answer(answered)
    return not answered


async def take_from(
    worker: str, run_id: str, store: ThreadStore, runtime: Runtime, *, patience_seconds: float | None = None
) -> str | None:
    """Ends a worker's hold on a run that it does not go on with. Returns the run to ring for, if any.

    `patience_seconds`: for the budgets in a Redis that is away (None: as long as it takes). Raises redis.RedisError.
    """
    run = await store.holding(run_id)
    if run and run.worker == worker:
        # First, so that nothing stays reserved for a run that ends here; whatever the limits are now.
        await runtime.budgets.close(account_of(run), run.epoch, patience_seconds=patience_seconds)
    expired = await store.expire(run_id, worker, max_attempts=runtime.settings.worker.max_attempts)
    if expired.failed and run:
        runtime.observer.gave_up()
        await end_processes(run, store, runtime, patience_seconds=0)
    return expired.ring


async def end_processes(
    run: Run | Holding, store: ThreadStore, runtime: Runtime, *, patience_seconds: float = CLEAN_UP_SECONDS
) -> None:
    """What a run still does in its sandbox ends before the run does: nothing may happen after its last event.

    `patience_seconds`: for a sandbox host that is away. Raises SandboxFenced.
    """
    thread = await store.thread(run.thread_id)
    if thread is None or thread.sandbox is None:
        return
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            sandbox = await runtime.sandboxes.acquire(thread.sandbox_of, thread.sandbox)
            return await sandbox.cancel(run.id, run.epoch)
        except SandboxFenced:
            raise
        except SandboxUnavailable as error:
            if time.monotonic() > deadline:
                return log.error("run %s: processes of its may go on in its sandbox: %s", run.id, error)
        except SandboxError as error:
            return log.warning("run %s: its sandbox is gone, and its processes with it: %s", run.id, error)
        await asyncio.sleep(1)


async def _first_of(flow: asyncio.Task[Any], stops: Iterable[asyncio.Event]) -> None:
    waiters = [asyncio.create_task(stop.wait()) for stop in stops]
    try:
        await asyncio.wait({flow, *waiters}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()
