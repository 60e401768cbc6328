"""Ending asyncio tasks for sure.

Asking once is not enough: redis-py waits with `asyncio.wait_for`, which before Python 3.12 can swallow a cancellation
that comes together with the answer (python/cpython#86296).
"""

import asyncio
from collections.abc import Collection
from types import TracebackType
from typing import Any, Self

AGAIN_SECONDS = 0.5


async def cancel(tasks: Collection[asyncio.Future[Any]]) -> None:
    """Cancels until all have ended; their outcomes are the caller's to read."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_SECONDS)


class TimeLimit:
    """`asyncio.timeout` that asks until the block has ended; then raises TimeoutError. None: no limit."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._asked = 0

    def expired(self) -> bool:
        return self._asked > 0

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancels_before = task.cancelling()
        self._next: asyncio.TimerHandle | None = None
        if self._seconds is not None:
            self._next = asyncio.get_running_loop().call_later(max(0.0, self._seconds), self._ask)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._next is not None:
            self._next.cancel()
        for _ in range(self._asked):
            self._task.uncancel()
        only_ours = self.expired() and self._task.cancelling() <= self._cancels_before
        if only_ours and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error

    def _ask(self) -> None:
        self._asked += 1
        self._task.cancel()
        self._next = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._ask)
