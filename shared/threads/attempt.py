"""One claim of one run by one worker: everything its owner writes, fenced by the claim's epoch."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from shared.keys import ThreadKeys
from shared.payloads.blobs import Ref, TooLarge
from shared.payloads.payloads import Payloads
from shared.scripts import Scripts
from shared.threads.brief import encode_brief
from shared.threads.steps import StepRecord
from shared.threads.types import NewEvent, Run, Thread
from shared.types import JSON, EventType, RunStatus

TERMINAL_EVENT = {
    RunStatus.SUCCEEDED: EventType.RUN_COMPLETED,
    RunStatus.FAILED: EventType.RUN_FAILED,
    RunStatus.CANCELED: EventType.RUN_CANCELED,
}


class Fenced(BaseException):
    """The run is no longer this attempt's: another worker has it, or it has ended. Stop, and write nothing more.

    No Exception: a flow that catches what its steps raise must not take it for a step's failure.
    """


class Lacking(Exception):
    """The worker has not the durable function that the run needs, which the text names."""


class GoOn(Exception):
    """The run may not end or pause yet: it is to be canceled (`canceled`), or was given a message (`message`)."""


class IllegalStep(Exception):
    """A step's change that its state does not allow, such as a second result. A bug, never a client's doing."""


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes true at once with a commit."""

    steps: Sequence[StepRecord] = ()
    messages: Sequence[JSON] = ()
    events: Sequence[NewEvent] = ()
    run: Mapping[str, str | int | bytes] = field(default_factory=dict)
    thread: Mapping[str, str | int | bytes] = field(default_factory=dict)


class Attempt:
    """A run held by a worker. `journal` has its steps by their keys, as they are recorded by now; `messages` are as
    they were when it was claimed. `size` is about how many bytes both have as JSON.

    Its writes go out one at a time and numbered, so that a repeated one changes nothing.
    `canceled` is set when an answer tells that somebody asked to cancel the run, `inbox` counts the messages that were
    put into it, `taken` those that its flow has heeded. `fenced` is what its first refused write has raised, `left` the
    status in which it has left the run.
    """

    def __init__(
        self,
        scripts: Scripts,
        payloads: Payloads,
        *,
        ring_ms: int,
        run: Run,
        thread: Thread,
        journal: dict[str, StepRecord],
        messages: list[JSON],
        size: int,
    ) -> None:
        self.payloads = payloads
        self.run = run
        self.thread = thread
        self.journal = journal
        self.messages = messages
        self.size = size
        self.inbox = run.inbox
        self.taken = 0
        self.fenced: Fenced | None = None
        self.left: RunStatus | None = None
        self.canceled = asyncio.Event()
        if run.cancel_requested:
            self.canceled.set()
        self._scripts = scripts
        self._ring_ms = ring_ms
        self._keys = ThreadKeys(run.thread_id)
        self._ops = 0
        self._turn = asyncio.Lock()
        self._claimed_at = time.monotonic()

    @property
    def held_seconds(self) -> float:
        """How long workers have had the run, all attempts together."""
        return self.run.ran_seconds + time.monotonic() - self._claimed_at

    async def emit(self, events: Sequence[NewEvent]) -> None:
        """Appends events that stand for nothing durable. Raises Fenced."""
        k = self._keys
        rows = [event.flat() for event in events]
        await self._write("emit", [k.run(self.run.id), k.metadata, k.stream], _counted(rows))

    async def commit(self, change: Change) -> list[StepRecord]:
        """Returns the steps as they are now recorded, what is large by reference.

        Raises Fenced, IllegalStep, TooLarge.
        """
        k = self._keys
        run_id = self.run.id
        names = [k.run(run_id), k.metadata, k.stream, k.journal(run_id), k.messages, k.waits(run_id), k.timers]
        names += [k.steps(run_id), k.dirty]
        messages = [(self.payloads.encoded(message, "A message"),) for message in change.messages]
        events = [event.flat() for event in change.events]
        fields = [*_counted(list(change.run.items())), *_counted(list(change.thread.items()))]
        answer = ["missing"]
        while answer[0] == "missing":
            steps = [await self._by_reference(step) for step in change.steps]
            stored = {ref for step in steps for ref in step.refs} - {ref for step in change.steps for ref in step.refs}
            blobs = [(ref.marker,) for ref in stored]
            rows = [step.row() for step in steps]
            lists = [*_counted(rows), *_counted(messages), *fields, *_counted(events), *_counted(blobs)]
            answer = await self._write("commit", names, lists)
        self._learn(steps)
        self.size += sum(len(row[2]) for row in rows) + sum(len(message[0]) for message in messages)
        return steps

    def _learn(self, steps: Iterable[StepRecord]) -> None:
        self.journal |= {step.key: step for step in steps}

    async def _by_reference(self, step: StepRecord) -> StepRecord:
        """With what is large in it stored apart. An input that is too large is not kept: no replay needs it."""
        if step.input is not None:
            step = await self._with_input_apart(step)
        if ref := await self._kept(step.result, f"The result of step {step.key}"):
            step = replace(step, result=None, payload=ref)
        wait = step.wait
        if wait and (ref := await self._kept(wait.request, f"The request of step {step.key}")):
            step = replace(step, wait=replace(wait, request=None, request_ref=ref))
        return step

    async def _with_input_apart(self, step: StepRecord) -> StepRecord:
        try:
            ref = await self._kept(step.input, f"The input of step {step.key}")
        except TooLarge:
            return replace(step, input=None)
        return replace(step, input=None, input_ref=ref) if ref else step

    async def _kept(self, value: Any, what: str) -> Ref | None:
        if value is None:
            return None
        return await self.payloads.kept(self.run.thread_id, self.payloads.encoded(value, what))

    async def input(self) -> JSON:
        """The run's. Raises AppError RESULT_LOST, UNAVAILABLE."""
        found: JSON = await self.payloads.value(self.run.input, self.run.input_ref)
        return found

    async def result_of(self, step: StepRecord) -> Any:
        """A finished step's result, read now where it is large. Raises AppError RESULT_LOST, UNAVAILABLE."""
        return await self.payloads.value(step.result, step.payload)

    async def end(self, status: RunStatus, data: JSON, fields: Mapping[str, Any], *, taken: int = 0) -> str | None:
        """The run is over. `data` is its last event's, `taken` how many of the messages put into it were heeded.

        A large `output` among the fields is recorded by reference. Returns the run to ring for, if any.
        Raises Fenced, GoOn, TooLarge.
        """
        answer, event = ["missing"], encode_brief(data)
        while answer[0] == "missing":
            ref = await self._kept(fields.get("output"), "The run's output")
            kept = {**fields, "output": None, "output_ref": ref.as_json()} if ref else fields
            rows = [(name, orjson.dumps(value)) for name, value in kept.items()]
            blobs = [(ref.marker,)] if ref else []
            answer = await self._release(status, TERMINAL_EVENT[status], event, taken=taken, fields=rows, blobs=blobs)
        if answer[0] == "go_on":
            raise GoOn(answer[1])
        return answer[1] or None

    async def give_back(self, reason: str) -> str | None:
        """The run goes back to pending, for any worker. Returns the run to ring for. Raises Fenced."""
        return (await self._release(RunStatus.PENDING, "", reason))[1] or None

    async def wait(self, steps: Sequence[StepRecord], *, ending: bool = False) -> list[StepRecord]:
        """The run waits for the steps, and this attempt is over. Unless some of them are answered: returns those.

        `ending`: it waits only to end, canceled. Otherwise raises GoOn when it is to be canceled. Raises Fenced.
        """
        waits = [{"step_id": f"{self.run.id}.{step.number}", **step.wait.shown()} for step in steps if step.wait]
        data = encode_brief({"waits": waits})
        answer = await self._release(
            RunStatus.WAITING, EventType.RUN_WAITING, data, ending=ending, steps=[(step.key,) for step in steps]
        )
        match answer:
            case ["go_on", "answered", *entries]:
                answered = [StepRecord.parse(*pair) for pair in zip(entries[::2], entries[1::2], strict=True)]
                self._learn(answered)
                return answered
            case ["go_on", why]:
                raise GoOn(why)
        return []

    async def _release(
        self,
        status: RunStatus,
        event: str,
        data: str | bytes,
        *,
        taken: int = 0,
        ending: bool = False,
        fields: Sequence[tuple[str, bytes]] = (),
        steps: Sequence[tuple[str]] = (),
        blobs: Sequence[tuple[str]] = (),
    ) -> list[str]:
        head = [status, self._ring_ms, event, data, taken, "ending" if ending else ""]
        keys = self._keys.of_ending(self.run.id)
        lists = [*_counted(fields), *_counted(steps), *_counted(blobs)]
        answer = await self._write("release", keys, [*head, *lists])
        if answer[:2] == ["go_on", "canceled"]:
            self.canceled.set()
        if answer[0] not in ("go_on", "missing"):
            self.left = status
        return answer

    async def _write(self, name: str, keys: list[str], args: list[Any]) -> list[str]:
        async with self._turn:
            self._ops += 1
            head = [self.run.thread_id, self.run.id, self.run.epoch, self._ops]
            answer: list[str] = await self._scripts.call(name, keys, [*head, *args], lasting=name != "emit")
        if answer[0] == "fenced":
            why = f"{self.run.id}: epoch {self.run.epoch} is over, the run is {answer[2]} at epoch {answer[1]}"
            self.fenced = Fenced(why)
            raise self.fenced
        if answer[0] == "illegal":
            raise IllegalStep(f"{self.run.id}: step {answer[1]} may not go from {answer[2]} to {answer[3]}")
        if name != "release" and answer[0] != "missing":
            self.inbox = int(answer[2])
            if answer[1]:
                self.canceled.set()
        return answer


def _counted(rows: Sequence[Sequence[Any]]) -> list[Any]:
    return [len(rows), *(item for row in rows for item in row)]


def known_of(attempt: Attempt | None, functions: Sequence[str] | None) -> list[str | int]:
    """What the worker has of the run, as `claim` takes it."""
    steps = [*attempt.journal.values()] if attempt else []
    highest: str | int = max((step.number for step in steps), default=0) if attempt else ""
    unfinished = [step.key for step in steps if not step.finished]
    head = [highest, len(attempt.messages) if attempt else 0, "any" if functions is None else ""]
    return [*head, len(unfinished), *unfinished, len(functions or ()), *(functions or ())]
