"""The waits of a flow: each writes down what it waits for, arranges to be answered, and then holds nothing.

First the record, then the arrangement: a crash in between leaves a wait that the next attempt arranges again, which
changes nothing where it was arranged already. The answer comes from outside (shared/events/answers.py).
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from shared.errors import AppError, ErrorCode
from shared.events.answers import event_answer
from shared.events.bus import Topic
from shared.events.outside import Outside
from shared.ids import child_run_id
from shared.threads.steps import StepRecord, Wait
from shared.threads.types import PARENT_ENDED, NewEvent, Run
from shared.types import JSON, EventType, StepStatus, WaitKind
from workflow.engine.children import Children
from workflow.engine.journal import Journal, StepSpec
from workflow.engine.parking import Parking

IDENTITY = ("type", "id", "input", "sandbox_of")
"""What makes a child the same one on replay. Its parameters do not: a retry may raise its run's limits."""
MAX_DEPTH = 16
"""Of runs that call runs: one that calls itself for ever is a mistake, and a costly one."""


class Waits:
    """Of one attempt. Each method returns the step's record once it is answered."""

    def __init__(self, run: Run, journal: Journal, parking: Parking, outside: Outside) -> None:
        self._run = run
        self._journal = journal
        self._parking = parking
        self._outside = outside
        self._children = Children(run, outside)
        self._had: dict[tuple[str, str], str] = {}

    async def for_event(
        self, step_key: str, name: str, key: str | None, timeout: float | None, look_back: float | None
    ) -> StepRecord:
        topics = [
            Topic.of(self._run.workspace, name, run_id=self._run.id),
            Topic.of(self._run.workspace, name, key=key),
        ]

        async def wait() -> Wait:
            now = await self._outside.store.now_ms()
            first = "0" if look_back is None else str(now - int(look_back * 1000))
            return Wait(
                WaitKind.EVENT,
                until=_later(now, timeout),
                name=name,
                topics=[[t.workspace, t.name, t.place, self._had.get((name, t.place), first)] for t in topics],
            )

        async def arrange(record: StepRecord) -> None:
            assert record.wait is not None
            for workspace, event_name, place, after in record.wait.topics:
                topic = Topic(workspace, event_name, place)
                if event := await self._outside.bus.register(topic, f"{self._run.id}/{record.key}", after):
                    answer = event_answer(event, topic)
                    await self._outside.store.signal(self._run.id, record.key, answer, [WaitKind.EVENT])
                    return

        record = await self._wait(StepSpec(step_key, name, "event", key), wait, arrange)
        if record.status is StepStatus.SUCCEEDED:
            with self._parking.at_work():
                result = await self._outside.store.payloads.value(record.result, record.payload)
            record = replace(record, result=result, payload=None)
            self._had[name, record.result["place"]] = record.result["id"]
        return record

    async def for_time(self, step_key: str, *, seconds: float = 0, until: datetime | None = None) -> StepRecord:
        async def wait() -> Wait:
            if until is not None:
                return Wait(WaitKind.TIMER, until=int(until.timestamp() * 1000))
            return Wait(WaitKind.TIMER, until=_later(await self._outside.store.now_ms(), seconds))

        # How long is not part of what it is: a flow may reckon it from the time of day.
        return await self._wait(StepSpec(step_key, "sleep", "timer"), wait, _nothing)

    async def for_child(self, step_key: str, child: JSON, started: Sequence[tuple[str, JSON]] = ()) -> StepRecord:
        """`child`: its type, id, input and parameters, and whose sandbox it has. Raises AppError CALL_TOO_DEEP, and as
        `Children.check`.

        It is born as the attempt wrote it down that was the first to call it.
        """
        if self._run.depth >= MAX_DEPTH:
            raise AppError(
                ErrorCode.CALL_TOO_DEEP,
                f"This run stands below {MAX_DEPTH} others, each called by the one above it, and cannot call a further "
                "one: does a function or an agent call itself without end?",
            )

        async def wait() -> Wait:
            await self._children.check(child)
            return Wait(WaitKind.CHILD, name=child_run_id(self._run.id, step_key), request=child)

        async def arrange(record: StepRecord) -> None:
            await self._outside.ring(await self._children.bear(record))

        identity = {name: child[name] for name in IDENTITY}
        spec = StepSpec(step_key, child["id"] or child["type"], "child", identity)
        return await self._wait(spec, wait, arrange, started)

    async def cancel_children(self) -> list[StepRecord]:
        """Returns the steps whose children have not ended yet. One that was not yet born is born to be canceled."""
        going_on = []
        for record in self._journal.open_steps:
            if record.wait is None or record.wait.kind is not WaitKind.CHILD:
                continue
            await self._children.bear(record, to_cancel=True)
            child, ring = await self._outside.store.cancel(record.wait.name or "", reason=PARENT_ENDED)
            await self._outside.ring(ring)
            if not child.status.terminal:
                going_on.append(record)
        return going_on

    async def for_human(self, step_key: str, name: str, request: Any, timeout: float | None) -> StepRecord:
        async def wait() -> Wait:
            until = _later(await self._outside.store.now_ms(), timeout)
            return Wait(WaitKind.HUMAN, until=until, name=name, request=request)

        return await self._wait(StepSpec(step_key, name, "human", request), wait, self._list_for_people)

    async def ask_for_outcome(self, record: StepRecord, question: str) -> StepRecord:
        """Nobody knows what became of a step: it waits for somebody who finds out."""
        wait = Wait(WaitKind.OUTCOME, name=record.name, request=question)
        asked = replace(record, status=StepStatus.UNKNOWN, wait=wait)
        event = NewEvent(EventType.STEP_WAITING_HUMAN, {"key": record.key, "request": question}, record.number)
        return await self._journal.move(asked, [event])

    async def for_outcome(self, record: StepRecord) -> StepRecord:
        with self._parking.at_work():
            await self._arrange(record, self._list_for_people)
        return await self._answered(record)

    async def usage_of(self, run_id: str) -> JSON | None:
        """What a child has used, as far as it was written down. None: it was not born, or is gone."""
        run = await self._outside.store.run(run_id)
        return run.usage if run else None

    async def inbox(self, start: int) -> list[JSON]:
        return await self._outside.store.inbox(self._run.id, start)

    async def publish(self, name: str, payload: Any, key: str | None, event_key: str) -> str:
        topic = Topic.of(self._run.workspace, name, key=key)
        event_id, waited_for = await self._outside.bus.publish(topic, payload, key=key, event_key=event_key)
        if waited_for:
            for run_id in (await self._outside.answers.deliver(topic)).rings:
                await self._outside.ring(run_id)
        return event_id

    async def _list_for_people(self, record: StepRecord) -> None:
        await self._outside.approvals.add(self._run, record.number, await self._outside.store.now_ms())

    async def _wait(
        self,
        spec: StepSpec,
        wait: Callable[[], Awaitable[Wait]],
        arrange: Callable[[StepRecord], Awaitable[None]],
        started: Sequence[tuple[str, JSON]] = (),
    ) -> StepRecord:
        record = await self._journal.open(spec)
        if record.finished:
            return record
        with self._parking.at_work():
            if not record.open:
                record = await self._write_down(replace(record, wait=await wait()), started)
            await self._arrange(record, arrange)
        return await self._answered(record)

    async def _arrange(self, record: StepRecord, arrange: Callable[[StepRecord], Awaitable[None]]) -> None:
        """Arranging is not fenced: by an attempt that stood still it may come after the wait was cleaned up after."""
        await arrange(record)
        if arrange is not _nothing:
            known = await self._outside.store.step_of(self._run.id, record.key)
            if known and not known.open:
                await self._outside.ring(await self._outside.answers.forget(self._run.id, known))

    async def _write_down(self, record: StepRecord, started: Sequence[tuple[str, JSON]]) -> StepRecord:
        assert record.wait is not None
        data = {"key": record.key, "name": record.name, "kind": record.kind}
        begins = [(str(EventType.STEP_STARTED), data), *started]
        events = [NewEvent(kind, said, record.number) for kind, said in begins]
        status = StepStatus.WAITING
        if record.wait.kind is WaitKind.HUMAN:
            status = StepStatus.WAITING_HUMAN
            asked = {"key": record.key, "request": record.wait.request, "until": record.wait.shown()["until"]}
            events.append(NewEvent(EventType.STEP_WAITING_HUMAN, asked, record.number))
        return await self._journal.move(replace(record, status=status), events)

    async def _answered(self, record: StepRecord) -> StepRecord:
        answered = await self._parking.answered(record)
        self._journal.learn(answered)
        return answered


async def _nothing(_: StepRecord) -> None:
    """There is nothing to arrange: the timer was written down with the wait."""


def _later(now_ms: int, seconds: float | None) -> int | None:
    return None if seconds is None else now_ms + round(seconds * 1000)
