"""Streams text as few events: the first piece at once, then at most one event an interval.

So the cost of a stream follows time, not tokens, and a reader still sees the first word without delay.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from shared.tasks import cancel
from shared.types import JSON

PIECE_CHARS = 10_000
"""In one event; as JSON a character has up to six bytes, and shared.threads.brief would leave more out."""

Events = Sequence[tuple[str, JSON]]


class Coalescer(AbstractAsyncContextManager["Coalescer"]):
    """Pieces of text under a label (`agent.delta`, `stdout`), in order; neighbours with one label become one event.

    `event(label, text)` makes an event of them; `emit` sends events, and what it raises comes out of `add` or `rest`.
    """

    def __init__(
        self,
        emit: Callable[[Events], Awaitable[None]],
        event: Callable[[str, str], tuple[str, JSON]],
        interval_seconds: float,
    ) -> None:
        self._emit = emit
        self._event = event
        self._interval_seconds = interval_seconds
        self._pieces: list[tuple[str, list[str]]] = []
        self._filled = asyncio.Event()
        self._sending = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._pump = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await cancel([self._pump])
        if not self._pump.cancelled():
            self._pump.exception()  # seen: whoever left early has a reason of its own, or `add` and `rest` raised it

    def add(self, label: str, text: str) -> None:
        """Never waits."""
        if self._pump.done():
            self._pump.result()
        if self._pieces and self._pieces[-1][0] == label:
            self._pieces[-1][1].append(text)
        else:
            self._pieces.append((label, [text]))
        self._filled.set()

    async def rest(self) -> list[tuple[str, JSON]]:
        """What was not sent yet, as events: to go out with the commit that ends the stream."""
        async with self._sending:  # cancelling the pump must not cut a send in two
            if self._pump.done():
                self._pump.result()
            return self._take()

    async def flush(self) -> None:
        """Sends what was not sent yet."""
        async with self._sending:
            if events := self._take():
                await self._emit(events)

    def _take(self) -> list[tuple[str, JSON]]:
        pieces, self._pieces = self._pieces, []
        self._filled.clear()
        texts = [(label, "".join(parts)) for label, parts in pieces]
        return [self._event(label, part) for label, text in texts for part in _parts(text)]

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            await self.flush()
            await asyncio.sleep(self._interval_seconds)


def _parts(text: str) -> list[str]:
    return [text[start : start + PIECE_CHARS] for start in range(0, len(text), PIECE_CHARS)]
