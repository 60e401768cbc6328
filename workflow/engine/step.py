"""The Step API: everything durable goes through it.

    result = await step.do("charge", charge_card, input={"order": 7})

A step that finished returns its recorded result; one that did not is done (again). Its result, its messages and its
events become true in one commit.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shared.errors import AppError, ErrorCode
from shared.threads.attempt import Attempt, Change
from shared.threads.types import NewEvent, StepRecord
from shared.types import JSON, EventType, StepStatus
from workflow.engine.journal import FINISHED, Journal, StepSpec


class Drained(Exception):
    """The worker is shutting down: no new step starts. The run goes on elsewhere."""


class StepFailed(AppError):
    """A step that failed earlier in this run, met again on replay."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step's body gives back. `result` is JSON, kept for replay; `events` come before `step.completed`."""

    result: Any
    messages: Sequence[JSON] = ()
    events: Sequence[tuple[str, JSON]] = ()
    run: dict[str, str | int | bytes] = field(default_factory=dict)
    status: StepStatus = StepStatus.SUCCEEDED


class StepScope:
    """What a running step's body may use."""

    def __init__(self, attempt: Attempt, record: StepRecord) -> None:
        self._attempt = attempt
        self.number = record.number
        self.run_id = attempt.run.id
        self.step_id = f"{attempt.run.id}.{record.number}"
        self.effect_key = f"{attempt.run.id}/{record.key}"
        """Names the effect, the same in every attempt: a tool or a sandbox tells a repeated call by it."""
        self.epoch = attempt.run.epoch

    async def emit(self, events: Sequence[tuple[str, JSON]]) -> None:
        """Events that stand for nothing durable (text deltas, a command's output). Raises Fenced."""
        await self._attempt.emit([NewEvent(kind, data, self.number) for kind, data in events])


Body = Callable[[StepScope], Awaitable[Outcome]]
Recovery = Callable[[StepScope], Awaitable[Outcome | None]]


class Step:
    """The steps of one attempt of one run. `draining` set: no new step starts."""

    def __init__(self, attempt: Attempt, draining: asyncio.Event) -> None:
        self._attempt = attempt
        self._journal = Journal(attempt)
        self._draining = draining
        self._names: Counter[str] = Counter()

    async def do(self, name: str, fn: Callable[[], Awaitable[Any]], *, input: Any = None) -> Any:
        """Does `fn` once: its JSON result is recorded, and returned at once when the run is replayed.

        A name used again in the same run is another step (`name`, `name:2`, ...), so loops work. After a crash in the
        middle, `fn` runs again. Raises AppError from `fn` (recorded: the step has failed) or REPLAY_MISMATCH.
        """
        self._names[name] += 1
        key = name if self._names[name] == 1 else f"{name}:{self._names[name]}"

        async def body(_: StepScope) -> Outcome:
            return Outcome(await fn())

        return await self.perform(StepSpec(key, name, "function", input), body)

    async def perform(
        self,
        spec: StepSpec,
        body: Body,
        *,
        started: Sequence[tuple[str, JSON]] = (),
        recover: Recovery | None = None,
    ) -> Any:
        """As `do`, for code of the runtime that adds messages and events, or whose effects must not be repeated.

        `started` events follow `step.started`. `recover` is asked when a step with intent was in flight at a crash: it
        gives the outcome, or None when the effect never began. Raises Drained, Fenced.
        """
        record = self._journal.open(spec)
        if record.status in FINISHED:
            return _replay(record)
        if self._draining.is_set():
            raise Drained
        scope = StepScope(self._attempt, record)
        in_flight = record.status is StepStatus.RUNNING
        record = await self._begin(record, spec, scope, started)
        begun = time.monotonic()
        try:
            outcome = await recover(scope) if in_flight and recover else None
            outcome = outcome or await body(scope)
        except AppError as error:
            await self._fail(record, error, begun)
            raise
        done = replace(
            record, status=outcome.status, result=outcome.result, duration_ms=round((time.monotonic() - begun) * 1000)
        )
        events = [*outcome.events, (EventType.STEP_COMPLETED, {"key": record.key, "duration_ms": done.duration_ms})]
        numbered = [NewEvent(kind, data, record.number) for kind, data in events]
        await self._journal.finish(done, Change(messages=outcome.messages, events=numbered, run=outcome.run))
        return outcome.result

    async def _begin(
        self, record: StepRecord, spec: StepSpec, scope: StepScope, started: Sequence[tuple[str, JSON]]
    ) -> StepRecord:
        data = {"key": record.key, "name": record.name, "kind": record.kind}
        events = [(EventType.STEP_STARTED, data), *started]
        if not spec.intent:
            await scope.emit(events)
            return record
        if record.status is StepStatus.RUNNING:
            record = replace(record, tries=record.tries + 1)
        return await self._journal.start(record, [NewEvent(kind, data, record.number) for kind, data in events])

    async def _fail(self, record: StepRecord, error: AppError, begun: float) -> None:
        cause = {"code": error.code, "detail": error.detail}
        failed = replace(
            record, status=StepStatus.FAILED, error=cause, duration_ms=round((time.monotonic() - begun) * 1000)
        )
        event = NewEvent(EventType.STEP_FAILED, {"key": record.key, "error": cause}, record.number)
        await self._journal.finish(failed, Change(events=[event]))


def _replay(record: StepRecord) -> Any:
    if record.status is StepStatus.FAILED:
        error = record.error or {}
        raise StepFailed(ErrorCode(error["code"]), error["detail"])
    return record.result
