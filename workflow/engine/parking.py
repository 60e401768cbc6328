"""Whether a flow has nothing left to do here: then its run can wait without a worker, or go on elsewhere."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NoReturn

from shared.threads.steps import StepRecord

TURNS_FOR_OTHERS = 3
"""Of the event loop, in which another branch of the flow may begin a step."""

_inside: ContextVar[tuple[object, ...]] = ContextVar("_inside", default=())
"""The steps at work that this code is part of."""


class Parking:
    """The steps of one attempt that are at work, those that wait for an answer, and those refused in a drain.

    `idle` is set when no step is at work but those that such a one is part of. A flow that awaits something else than
    its steps (a bare sleep, a socket) counts as waiting: nothing of that would survive a crash either.
    """

    def __init__(self) -> None:
        self.idle = asyncio.Event()
        self.drained = False
        """A step was refused."""
        self._at_work: set[object] = set()
        self._held_up: set[object] = set()
        self._open: dict[str, tuple[StepRecord, asyncio.Future[StepRecord]]] = {}

    def alone(self) -> bool:
        """Whether no step is at work, and none waits."""
        return not self._at_work and not self._open

    @property
    def waiting(self) -> list[StepRecord]:
        return [record for record, _ in self._open.values()]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        work, around = object(), _inside.get()
        self._at_work.add(work)
        _inside.set((*around, work))
        self.idle.clear()
        try:
            yield
        finally:
            _inside.set(around)
            self._at_work.discard(work)
            self._look(TURNS_FOR_OTHERS)

    async def refuse(self) -> NoReturn:
        """For a step that is not to start here any more. Its branch ends with the attempt, once the others are done."""
        self.drained = True
        self._held_up.update(_inside.get())
        self._look(TURNS_FOR_OTHERS)
        while True:
            await asyncio.Event().wait()

    async def answered(self, record: StepRecord) -> StepRecord:
        """The step once it has its answer; in this attempt only if that comes before the run is released."""
        answer: asyncio.Future[StepRecord] = asyncio.get_running_loop().create_future()
        self._open[record.key] = (record, answer)
        self._look(TURNS_FOR_OTHERS)
        try:
            return await answer
        finally:
            del self._open[record.key]
            self._look(TURNS_FOR_OTHERS)

    def answer(self, records: Iterable[StepRecord]) -> None:
        self.idle.clear()
        for record in records:
            _, answer = self._open.get(record.key, (record, None))
            if answer and not answer.done():  # its branch may have been cancelled meanwhile
                answer.set_result(record)
        self._look(TURNS_FOR_OTHERS)

    def _look(self, turns: int) -> None:
        if self._at_work - self._held_up or not (self._open or self.drained):
            return
        if turns:
            asyncio.get_running_loop().call_soon(self._look, turns - 1)
        else:
            self.idle.set()
