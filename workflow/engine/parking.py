"""Whether a flow has nothing left to do but wait: then its run can wait without a worker."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from shared.threads.steps import StepRecord

TURNS_FOR_OTHERS = 3
"""Of the event loop, in which another branch of the flow may begin a step."""


class Parking:
    """The steps of one attempt that are at work, and those that wait for an answer.

    `idle` is set when only waits are left. A flow that awaits something else than its steps (a bare sleep, a socket)
    counts as waiting: nothing of that would survive a crash either.
    """

    def __init__(self) -> None:
        self.idle = asyncio.Event()
        self._at_work = 0
        self._open: dict[str, tuple[StepRecord, asyncio.Future[StepRecord]]] = {}

    def alone(self) -> bool:
        """Whether no step is at work, and none waits."""
        return not self._at_work and not self._open

    @property
    def waiting(self) -> list[StepRecord]:
        return [record for record, _ in self._open.values()]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self._at_work += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._at_work -= 1
            self._look(TURNS_FOR_OTHERS)

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
        if self._at_work or not self._open:
            return
        if turns:
            asyncio.get_running_loop().call_soon(self._look, turns - 1)
        else:
            self.idle.set()
