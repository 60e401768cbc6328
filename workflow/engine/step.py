"""The Step API: everything durable goes through it.

    result = await step.do("charge", charge_card, input={"order": 7})
    paid = await step.wait_for_event("payment", key="7", timeout=3600)

A step that finished returns its recorded result; one that did not is done (again). Its result, its messages and its
events become true in one commit. A wait holds no worker: the run is released, and goes on where it was once it has its
answer. A flow is ordinary async code that awaits its steps; what it does between them is done again by each attempt.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from shared.errors import AppError, ErrorCode
from shared.events.outside import Outside
from shared.payloads.blobs import TooLarge
from shared.threads.attempt import Attempt, Change
from shared.threads.steps import StepRecord
from shared.threads.types import NewEvent
from shared.types import JSON, EventType, StepStatus
from workflow.engine.children import parameters_of, runnable_of
from workflow.engine.journal import Journal, StepSpec, failure
from workflow.engine.parking import Parking
from workflow.engine.retry import ONCE, Retry, StepError
from workflow.engine.scope import AskHuman, Body, Outcome, Postponed, Recovery, Settle, StepScope
from workflow.engine.waits import Waits
from workflow.engine.work import Fn, attempted
from workflow.observe import Observer


class StepFailed(AppError):
    """A step that failed earlier in this run, met again on replay. `retryable`: another try may help."""

    def __init__(self, error: JSON, step_key: str | None = None) -> None:
        super().__init__(ErrorCode(error["code"]), error["detail"])
        self.retryable = bool(error.get("retryable"))
        self.step_key = step_key


class Step:
    """The steps of one attempt of one run. `draining` set: no new step starts."""

    def __init__(
        self, attempt: Attempt, draining: asyncio.Event, outside: Outside, observer: Observer | None = None
    ) -> None:
        self.run = attempt.run
        self._observer = observer or Observer()
        self.parking = Parking()
        self.journal = Journal(attempt, self.parking)
        self._attempt = attempt
        self._draining = draining
        self.waits = Waits(attempt.run, self.journal, self.parking, outside)
        self._names: Counter[str] = Counter()

    async def do(
        self,
        name: str,
        fn: Fn,
        *,
        input: Any = None,
        retry: Retry = ONCE,
        timeout: float | None = None,
        repeat: bool = True,
    ) -> Any:
        """Does `fn` once: its JSON result is recorded, and returned at once when the run is replayed.

        `fn` takes nothing, or the step's scope, whose `effect_key` names the effect to the world outside. A name used
        again in the same run is another step (`name`, `name:2`, ...), so loops work. `timeout` is in seconds, of each
        try. After a crash in the middle `fn` is done again; with `repeat=False` it is not: the run waits until
        somebody says what became of it (`POST /steps/{id}/resolve`).

        Raises AppError as `fn` does (STEP_FAILED with its words for other exceptions, STEP_TIMEOUT), RESULT_TOO_LARGE
        (whatever `retry` says: it would be so again), REPLAY_MISMATCH.
        """
        key = self._key(name)
        tries = 1

        async def body(scope: StepScope) -> Outcome:
            return Outcome(await attempted(fn, scope, retry, timeout))

        while True:
            this_try = key if tries == 1 else f"{key}~{tries}"
            spec = StepSpec(this_try, name, "function", input, intent=not repeat, effect=key, shown=input)
            try:
                return await self.perform(spec, body, recover=None if repeat else _nobody_knows)
            except AppError as error:
                pause = retry.pause(tries, error)
                if pause is None:
                    raise
            tries += 1
            await self.sleep(pause, key=f"{key}~{tries}:pause")

    async def perform(
        self,
        spec: StepSpec,
        body: Body,
        *,
        started: Sequence[tuple[str, JSON]] = (),
        recover: Recovery | None = None,
        settle: Settle | None = None,
    ) -> Any:
        """As `do`, for code of the runtime that adds messages and events, or whose effects must not be repeated.

        `started` events follow `step.started`. `recover` is asked when a step with intent was in flight at a crash: it
        gives the outcome, or None when the effect never began. Where it raises AskHuman, the run waits for somebody's
        decision, of which `settle` makes the outcome. Raises Fenced, Postponed (as the body does). Does not return
        where the worker drains: the step is done elsewhere.
        """
        record = await self.journal.open(spec)
        if record.finished:
            return await self._replay(record)
        if record.open:
            record = await self.waits.for_outcome(record)
        if self._draining.is_set():
            await self.parking.refuse()
        with self.parking.at_work():
            scope = StepScope(self._attempt, record, spec.effect or spec.key)
            in_flight = record.status is StepStatus.RUNNING
            begun = time.monotonic()
            try:
                outcome = _decided(record, await self._attempt.result_of(record), scope, settle)
                if outcome is None:
                    record = await self._begin(record, spec, scope, started)
                    with self._observer.step(scope.step_id, spec.key, spec.kind):
                        outcome = (await recover(scope) if in_flight and recover else None) or await body(scope)
            except AppError as error:
                await self._fail(record, error, begun)
                raise
            except Postponed:
                # It keeps its number, and so its place.
                await self.journal.move(replace(record, status=StepStatus.PENDING), [])
                raise
            except AskHuman as question:
                asked = await self.waits.ask_for_outcome(record, str(question))
            else:
                return await self._finish(record, outcome, begun)
        await self.waits.for_outcome(asked)
        return await self.perform(spec, body, started=started, recover=recover, settle=settle)

    async def recorded(self, spec: StepSpec) -> Any:
        """A finished step's result. Raises StepFailed, REPLAY_MISMATCH."""
        return await self._replay(await self.journal.open(spec))

    async def wait_for_event(
        self, name: str, key: str | None = None, timeout: float | None = None, *, look_back: float | None = None
    ) -> Any:
        """The payload of an event published under the name (and key), before or after this call.

        It is the first that this run has not had yet, of those still kept; `look_back`: of at most so many seconds ago.
        Raises StepFailed WAIT_TIMEOUT after `timeout` seconds.
        """
        record = await self.waits.for_event(self._key(f"event:{name}"), name, key, timeout, look_back)
        return (await self._replay(record))["payload"]

    async def sleep(self, seconds: float, *, key: str | None = None) -> None:
        """Waits so long, by Redis' time."""
        await self._replay(await self.waits.for_time(key or self._key("sleep"), seconds=seconds))

    async def sleep_until(self, when: datetime, *, key: str | None = None) -> None:
        """Waits until a point in time (with a time zone), by Redis' time."""
        await self._replay(await self.waits.for_time(key or self._key("sleep"), until=when))

    async def call(
        self,
        runnable: Any,
        input: Any = None,
        *,
        name: str | None = None,
        share_sandbox: bool = False,
        parameters: JSON | None = None,
        started: Sequence[tuple[str, JSON]] = (),
        only_tools: Sequence[str] | None = None,
    ) -> Any:
        """The output of a child run, in a thread of its own: of an agent (`agent`; `agent:ID`, one of the catalogue or
        a kind of agents) or a durable function (it, or `function:NAME`). An agent's input is its task. It ends with
        this run, at the latest. `share_sandbox`: it works in this thread's sandbox, not in one of its own.
        `parameters`: as of a request's, such as `max_cost`. `started` events follow `step.started`. `only_tools`: an
        agent of the catalogue keeps to these, and to the bounds of this run's agent.

        Raises StepFailed with the child's code when it fails, RUN_CANCELED when it is canceled; AppError
        INVALID_REQUEST for a parameter that it has no use for, CALL_TOO_DEEP in a run far below the first, NOT_FOUND
        for an agent that is not there, CONFLICT for one that takes no runs.
        """
        kind, runnable_id = runnable_of(runnable)
        key = self._key(f"call:{name or runnable_id or kind}")
        child = {"type": kind, "id": runnable_id, "input": input}
        child["sandbox_of"] = self._attempt.thread.sandbox_of if share_sandbox else None
        if parameters:
            child["parameters"] = parameters_of(kind, parameters)
        if only_tools is not None and runnable_id is not None:
            child["only_tools"] = list(only_tools)
        return await self._replay(await self.waits.for_child(key, child, started))

    async def approve(self, request: Any, *, name: str = "approval", timeout: float | None = None) -> Any:
        """What a human answers (`POST /steps/{id}/human-complete`). `request` (JSON) is what they are asked.

        Raises StepFailed WAIT_TIMEOUT after `timeout` seconds.
        """
        return await self._replay(await self.waits.for_human(self._key(f"approve:{name}"), name, request, timeout))

    async def publish(self, name: str, payload: Any = None, key: str | None = None) -> None:
        """Publishes an event, once, to those who wait for it and those who will."""
        # What is too large for everybody who waits fails here.
        self._attempt.payloads.encoded(payload, f"The payload of event {name!r}")

        async def body(scope: StepScope) -> Outcome:
            return Outcome(await self.waits.publish(name, payload, key, scope.effect_key))

        shown = {"name": name, "key": key, "payload": payload}
        await self.perform(StepSpec(self._key(f"publish:{name}"), name, "publish", [payload, key], shown=shown), body)

    async def emit(self, kind: str, data: JSON, *, name: str | None = None) -> None:
        """An event of the flow's own type on the thread's stream, once. Large data is the step's output too.

        `name` is the step's, by default the event's type.
        """

        large = self._attempt.payloads.large(data)

        async def body(_: StepScope) -> Outcome:
            return Outcome(data if large else None, events=[(kind, data)])

        shown = None if large else data
        await self.perform(StepSpec(self._key(f"emit:{name or kind}"), kind, "emit", data, shown=shown), body)

    def _key(self, base: str) -> str:
        self._names[base] += 1
        return base if self._names[base] == 1 else f"{base}:{self._names[base]}"

    async def _replay(self, record: StepRecord) -> Any:
        """A finished step's result. Raises StepFailed for one that failed."""
        if record.status in (StepStatus.FAILED, StepStatus.CANCELED):
            raise StepFailed(record.error or {}, record.key)
        with self.parking.at_work():  # the result may have to be read
            return await self._attempt.result_of(record)

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
        else:
            record = replace(record, inherited=False, asks=spec.asks)
        return await self.journal.start(record, [NewEvent(kind, data, record.number) for kind, data in events])

    async def _finish(self, record: StepRecord, outcome: Outcome, begun: float) -> Any:
        done = replace(record, status=outcome.status, result=outcome.result, payload=None, duration_ms=_ms_since(begun))
        events = [*outcome.events, (EventType.STEP_COMPLETED, {"key": record.key, "duration_ms": done.duration_ms})]
        numbered = [NewEvent(kind, data, record.number) for kind, data in events]
        try:
            await self.journal.finish(done, Change(messages=outcome.messages, events=numbered, run=outcome.run))
        except TooLarge as error:
            await self._fail(record, error, begun)
            raise
        self._observer.step_ended(record.kind, done.status)
        return outcome.result

    async def _fail(self, record: StepRecord, error: AppError, begun: float) -> None:
        error.step_key, cause = record.key, failure(error)
        failed = replace(record, status=StepStatus.FAILED, error=cause, duration_ms=_ms_since(begun))
        event = NewEvent(EventType.STEP_FAILED, {"key": record.key, "error": cause}, record.number)
        await self.journal.finish(failed, Change(events=[event]))
        self._observer.step_ended(record.kind, failed.status)


def _decided(record: StepRecord, decision: Any, scope: StepScope, settle: Settle | None) -> Outcome | None:
    """What somebody found out about an unknown outcome; None: it is to be done (again)."""
    if record.status is not StepStatus.PENDING or record.wait is None:
        return None
    if decision["as"] == "repeat":
        return None
    if settle is not None:
        return settle(scope, decision)
    if decision["as"] == "failed":
        raise StepError(ErrorCode.STEP_FAILED, "It was found to have failed.", retryable=False)
    return Outcome(decision.get("output"))


async def _nobody_knows(_: StepScope) -> Outcome | None:
    raise AskHuman("A worker died while this step was at work. Find out whether its effect took place.")


def _ms_since(begun: float) -> int:
    return round((time.monotonic() - begun) * 1000)
