"""When a model call is tried again, and how long to wait before: exponential backoff with full jitter."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from workflow.llm.types import ModelError

T = TypeVar("T")

LONGEST_RETRY_AFTER = 120.0
"""Seconds. A provider that asks for more is not waited for: the run would hold its place in the worker."""


def asks_too_much(error: ModelError) -> bool:
    return error.retry_after is not None and error.retry_after > LONGEST_RETRY_AFTER


@dataclass(frozen=True)
class RetryPolicy:
    """At most `max_attempts` tries; before try n + 1, a random pause of up to `backoff_seconds` * 2^(n-1)."""

    max_attempts: int = 4
    backoff_seconds: float = 1.0
    backoff_max_seconds: float = 30.0
    uniform: Callable[[float, float], float] = random.uniform
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def pause(self, tries: int, error: ModelError) -> float | None:
        """Seconds to wait after `tries` failed tries; None where there is to be no other."""
        if not error.retryable or tries >= self.max_attempts or asks_too_much(error):
            return None
        backoff = min(self.backoff_max_seconds, self.backoff_seconds * 2 ** (tries - 1))
        if error.retry_after is None:
            return self.uniform(0, backoff)
        # At least what the provider asked for; the jitter on top keeps its callers from coming back all at once.
        return error.retry_after + self.uniform(0, min(backoff, 1.0))


async def retried(
    policy: RetryPolicy,
    attempt: Callable[[], Awaitable[T]],
    on_retry: Callable[[ModelError, float], Awaitable[None]],
) -> T:
    """What an attempt returns. Raises the last one's ModelError, and at once whatever else one raises.

    `on_retry(error, pause)` is awaited before the pause that precedes each further attempt.
    """
    tries = 0
    while True:
        tries += 1
        try:
            return await attempt()
        except ModelError as error:
            pause = policy.pause(tries, error)
            if pause is None:
                raise
            await on_retry(error, pause)
        await policy.sleep(pause)
