"""One claim of one run by one worker: everything its owner writes, fenced by the claim's epoch."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from shared.keys import ThreadKeys
from shared.threads.scripts import Scripts
from shared.threads.types import NewEvent, Run, StepRecord, Thread
from shared.types import JSON, EventType, RunStatus

TERMINAL_EVENT = {
    RunStatus.SUCCEEDED: EventType.RUN_COMPLETED,
    RunStatus.FAILED: EventType.RUN_FAILED,
    RunStatus.CANCELED: EventType.RUN_CANCELED,
}


class Fenced(Exception):
    """The run is no longer this attempt's: another worker has it, or it has ended. Stop, and write nothing more."""


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
    """A run held by a worker. `journal` and `messages` are as they were when it was claimed.

    Its writes go out one at a time and numbered, so that a repeated one changes nothing.
    `canceled` is set when an answer tells that somebody asked to cancel the run.
    """

    def __init__(
        self,
        scripts: Scripts,
        *,
        ring_ms: int,
        run: Run,
        thread: Thread,
        journal: list[StepRecord],
        messages: list[JSON],
    ) -> None:
        self.run = run
        self.thread = thread
        self.journal = journal
        self.messages = messages
        self.canceled = asyncio.Event()
        if run.cancel_requested:
            self.canceled.set()
        self._scripts = scripts
        self._ring_ms = ring_ms
        self._keys = ThreadKeys(run.thread_id)
        self._ops = 0
        self._turn = asyncio.Lock()

    async def emit(self, events: Sequence[NewEvent]) -> None:
        """Appends events that stand for nothing durable. Raises Fenced."""
        k = self._keys
        await self._write("emit", [k.run(self.run.id), k.metadata, k.stream], _counted([e.flat() for e in events]))

    async def commit(self, change: Change) -> None:
        """Raises Fenced, IllegalStep."""
        k = self._keys
        steps: list[tuple[Any, ...]] = [(step.key, step.status, step.encode()) for step in change.steps]
        await self._write(
            "commit",
            [k.run(self.run.id), k.metadata, k.stream, k.journal(self.run.id), k.messages],
            [
                *_counted(steps),
                *_counted([(orjson.dumps(message),) for message in change.messages]),
                *_counted(list(change.run.items())),
                *_counted(list(change.thread.items())),
                *_counted([event.flat() for event in change.events]),
            ],
        )

    async def end(self, status: RunStatus, data: JSON, fields: Mapping[str, Any]) -> str | None:
        """The run is over. `data` is its last event's. Returns the run to ring for, if any. Raises Fenced."""
        pairs = [item for name, value in fields.items() for item in (name, orjson.dumps(value))]
        return await self._release(status, TERMINAL_EVENT[status], orjson.dumps(data), pairs)

    async def give_back(self, reason: str) -> str | None:
        """The run goes back to pending, for any worker. Returns the run to ring for. Raises Fenced."""
        return await self._release(RunStatus.PENDING, "", reason, [])

    async def _release(self, status: RunStatus, event: str, data: str | bytes, fields: list[Any]) -> str | None:
        k = self._keys
        return await self._write(
            "release",
            [k.run(self.run.id), k.metadata, k.stream, k.queue, k.live, k.timers],
            [status, self._ring_ms, event, data, *fields],
        )

    async def _write(self, name: str, keys: list[str], args: list[Any]) -> str | None:
        async with self._turn:
            self._ops += 1
            head = [self.run.thread_id, self.run.id, self.run.epoch, self._ops]
            answer = await self._scripts.call(name, keys, [*head, *args])
        if answer[0] == "fenced":
            raise Fenced(f"{self.run.id}: epoch {self.run.epoch} is over, the run is {answer[2]} at epoch {answer[1]}")
        if answer[0] == "illegal":
            raise IllegalStep(f"{self.run.id}: step {answer[1]} may not go from {answer[2]} to {answer[3]}")
        if name != "release" and answer[1]:
            self.canceled.set()
        return answer[1] or None


def _counted(rows: Sequence[Sequence[Any]]) -> list[Any]:
    return [len(rows), *(item for row in rows for item in row)]
