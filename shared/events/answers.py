"""What answers open waits, and what follows in other slots: events, times that are up, children that ended.

Everything here may be repeated, by anybody: the agenda (`keys.timers`) keeps what is not yet done.
"""

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

from redis.asyncio import Redis

from shared import keys
from shared.errors import ErrorCode
from shared.events.bus import Event, EventBus, Topic
from shared.ids import child_run_id
from shared.payloads.blobs import Lost
from shared.redis import passes, patiently
from shared.tenant import Tenant
from shared.threads.steps import Answer, StepRecord
from shared.threads.store import ThreadStore
from shared.threads.types import PARENT_ENDED, Run
from shared.types import JSON, RunStatus, StepStatus, WaitKind

WAITERS_AT_ONCE = 50

log = logging.getLogger("trunkline.answers")


class Approvals:
    """The steps of a workspace, and of each of its projects, that wait for a human, oldest first."""

    def __init__(self, client: Redis, *, patience_seconds: float | None) -> None:
        self._client = client
        self._patience_seconds = patience_seconds

    async def add(self, run: Run, step: int, since_ms: int) -> None:
        for name in _lists_of(run):
            await self._do(partial(self._client.zadd, name, {f"{run.id}.{step}": since_ms}, nx=True))

    async def remove(self, run: Run, step: int) -> None:
        for name in _lists_of(run):
            await self._do(partial(self._client.zrem, name, f"{run.id}.{step}"))

    async def page(self, tenant: Tenant, after: tuple[int, str] | None, count: int) -> list[tuple[int, str]]:
        """So many of them, as (since when in milliseconds, step id), behind one that was there."""
        name, after = keys.approvals(tenant), after or (0, "")
        found: list[tuple[int, str]] = []
        start = 0
        while len(found) < count:
            read = partial(self._client.zrangebyscore, name, after[0], "+inf", start=start, num=count, withscores=True)
            rows = [(int(since), str(step_id)) for step_id, since in await self._do(read)]
            found += [row for row in rows if row > after]
            if len(rows) < count:
                break
            start += count
        return found[:count]

    async def _do(self, call: Any) -> Any:
        return await patiently(call, self._patience_seconds)


def _lists_of(run: Run) -> set[str]:
    return {keys.approvals(tenant) for tenant in Tenant(run.workspace, run.project).seen_by}


@dataclass(frozen=True, slots=True)
class Delivered:
    """`rings`: the runs to ring for. `more`: there may be more waiters. `failed`: so many could not be answered."""

    rings: list[str]
    more: bool
    failed: int


class Answers:
    """Each call returns the run to ring for, if any."""

    def __init__(self, store: ThreadStore, bus: EventBus, approvals: Approvals) -> None:
        self._store = store
        self._bus = bus
        self._approvals = approvals

    async def deliver(self, topic: Topic, *, skip: int = 0) -> Delivered:
        """Answers some of those whose event has come, without the first `skip` ones.

        One who cannot be answered (its run's data are broken) is kept, and keeps no other waiting. Raises RedisError.
        """
        matches = await self._bus.matches(topic, WAITERS_AT_ONCE, skip)

        async def answer(waiter: str, event: Event) -> str | None:
            run_id, _, step_key = waiter.partition("/")
            signaled = await self._store.signal(run_id, step_key, event_answer(event, topic), [WaitKind.EVENT])
            return signaled.ring if signaled else None

        answers = await asyncio.gather(*(answer(waiter, event) for waiter, event in matches), return_exceptions=True)
        rings, failed = [], set()
        for (waiter, _), ring in zip(matches, answers, strict=True):
            if isinstance(ring, Exception) and not passes(ring):
                log.error("%s cannot be answered", waiter, exc_info=ring)
                failed.add(waiter)
            elif isinstance(ring, BaseException):
                raise ring
            elif ring:
                rings.append(ring)
        await self._bus.forget(topic, *(waiter for waiter, _ in matches if waiter not in failed))
        return Delivered(rings, len(matches) == WAITERS_AT_ONCE, len(failed))

    async def on_time(self, timer: str) -> str | None:
        """Does what is due on the agenda, and takes it off."""
        what, run_id, *rest = timer.split("|", 2)
        ring = None
        if what == "tell":
            ring = await self._tell_parent(run_id)
        elif what == "drop":
            ring = await self._cancel_child(child_run_id(run_id, rest[0]))
        elif what in ("blob", "gone"):
            await self._store.payloads.clean(timer)
            return None
        elif what not in ("wake", "clean"):
            raise ValueError(f"a newer release's timer: {timer}")
        elif step := await self._store.step_of(run_id, rest[0]):
            ring = await (self._wake(run_id, step) if what == "wake" else self.forget(run_id, step))
        await self._store.timers.done(timer)
        return ring

    async def _wake(self, run_id: str, step: StepRecord) -> str | None:
        if step.wait is None or not step.open:
            return None
        answer = Answer(StepStatus.SUCCEEDED)
        if step.wait.kind is not WaitKind.TIMER:
            detail = f"Step {step.name!r} waited until its time was up, and got no answer."
            answer = Answer(StepStatus.FAILED, error={"code": ErrorCode.WAIT_TIMEOUT, "detail": detail})
        signaled = await self._store.signal(run_id, step.key, answer, [step.wait.kind])
        return signaled.ring if signaled else None

    async def forget(self, run_id: str, step: StepRecord) -> str | None:
        """A wait that is over stands nowhere else any more, and nobody works for a child that nobody waits for."""
        if step.wait is None:
            return None
        for workspace, name, place, _ in step.wait.topics:
            await self._bus.forget(Topic(workspace, name, place), f"{run_id}/{step.key}")
        if step.wait.kind in (WaitKind.HUMAN, WaitKind.OUTCOME) and (run := await self._store.run(run_id)):
            await self._approvals.remove(run, step.number)
        if step.wait.kind is WaitKind.CHILD and step.status is StepStatus.CANCELED:
            return await self._cancel_child(child_run_id(run_id, step.key))
        return None

    async def _cancel_child(self, run_id: str) -> str | None:
        if await self._store.run(run_id) is None:
            return None
        _, ring = await self._store.cancel(run_id, reason=PARENT_ENDED)
        return ring

    async def _tell_parent(self, run_id: str) -> str | None:
        """The parent's step gets the child's result."""
        child = await self._store.run(run_id)
        if child is None or child.parent is None or not child.status.terminal:
            return None
        parent_id, _, step_key = child.parent.partition(" ")
        try:
            answer = child_answer(child, await self._store.payloads.value(child.output, child.output_ref))
        except Lost as lost:
            answer = Answer(StepStatus.FAILED, error={"code": lost.code, "detail": lost.detail})
        signaled = await self._store.signal(parent_id, step_key, answer, [WaitKind.CHILD])
        return signaled.ring if signaled else None


def event_answer(event: Event, topic: Topic) -> Answer:
    return Answer(StepStatus.SUCCEEDED, result={**event.as_json(), "place": topic.place})


def child_answer(child: Run, output: Any) -> Answer:
    if child.status is RunStatus.SUCCEEDED:
        return Answer(StepStatus.SUCCEEDED, result=output)
    error: JSON = {"code": ErrorCode.RUN_CANCELED, "detail": f"Its run {child.id} was canceled."}
    if child.cancel_reason == PARENT_ENDED:  # nothing that its parent got to see
        return Answer(StepStatus.CANCELED, error=error)
    if child.status is RunStatus.FAILED and child.error:
        error = {"code": child.error["code"], "detail": f"Its run {child.id} failed: {child.error['detail']}"}
    return Answer(StepStatus.FAILED, error=error)
