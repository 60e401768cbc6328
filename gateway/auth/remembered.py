"""What SQL said of a name, remembered for a while: requests do not each ask it, and go on while it is away."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from shared.errors import AppError, ErrorCode

log = logging.getLogger("trunkline.gateway.auth")

T = TypeVar("T")

FRESH_SECONDS = 15.0
"""How long an answer counts without being asked for again: the longest that a change goes unnoticed."""
UNKNOWN_SECONDS = 1.0
"""The same of the answer that there is no such thing: somebody may just be making it."""
LOAD_SECONDS = 2.0
"""How long a request waits for SQL."""
RETRY_SECONDS = 5.0
"""Pause between tries while SQL is away, in which an old answer counts."""
MOST = 10_000
"""Answers remembered; the one that was asked for the longest ago goes first."""


@dataclass(slots=True)
class _Answer(Generic[T]):
    value: T | None
    read_at: float
    good_until: float


class Remembered(Generic[T]):
    """`load` asks SQL. While SQL is away an answer counts for `max_seconds` after it was read."""

    def __init__(self, load: Callable[[str], Awaitable[T | None]], *, max_seconds: float) -> None:
        self._load = load
        self._max_seconds = max_seconds
        self._answers: OrderedDict[str, _Answer[T]] = OrderedDict()
        self._loading: dict[str, asyncio.Task[T | None]] = {}

    def knows(self, name: str) -> bool:
        """Whether there was such a thing when SQL was asked last."""
        answer = self._answers.get(name)
        return answer is not None and answer.value is not None

    def forget(self, name: str) -> None:
        self._answers.pop(name, None)

    async def get(self, name: str) -> T | None:
        """None: there is no such thing. Raises AppError UNAVAILABLE where SQL is away and nothing is remembered."""
        now, answer = time.monotonic(), self._answers.get(name)
        if answer is not None:
            self._answers.move_to_end(name)
            if now < answer.good_until:
                return answer.value
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                return await asyncio.shield(self._asked(name))
        except (AppError, TimeoutError) as error:
            if answer is None or answer.value is None or now >= answer.read_at + self._max_seconds:
                raise _unavailable() from error
            log.warning("SQL is away, what is remembered of callers counts for up to %.0f s more: %s",
                        answer.read_at + self._max_seconds - now, error)  # fmt: skip
            answer.good_until = now + RETRY_SECONDS
            return answer.value

    def _asked(self, name: str) -> asyncio.Task[T | None]:
        """However many ask at the same time, SQL is asked once."""
        task = self._loading.get(name)
        if task is None:
            task = self._loading[name] = asyncio.create_task(self._ask(name))
            task.add_done_callback(lambda done: self._done(name, done))
        return task

    async def _ask(self, name: str) -> T | None:
        read_at = time.monotonic()
        value = await self._load(name)
        good = FRESH_SECONDS if value is not None else UNKNOWN_SECONDS
        self._answers[name] = _Answer(value, read_at, read_at + good)
        while len(self._answers) > MOST:
            self._answers.popitem(last=False)
        return value

    def _done(self, name: str, task: asyncio.Task[T | None]) -> None:
        del self._loading[name]
        if not task.cancelled():
            task.exception()  # nobody may be waiting for it any more


def _unavailable() -> AppError:
    detail = "The SQL database does not answer, and these credentials are not remembered. Try again."
    return AppError(ErrorCode.UNAVAILABLE, detail, retry_after=RETRY_SECONDS)
