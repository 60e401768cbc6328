"""When a model call is tried again, and how long to wait before: exponential backoff with full jitter."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from workflow.llm.types import Model, ModelError, ModelRequest, ModelResponse, TextDelta, ThinkingDelta

OnDelta = Callable[[TextDelta | ThinkingDelta], Awaitable[None]]
OnRetry = Callable[[int, ModelError, float], Awaitable[None]]

LONGEST_RETRY_AFTER = 120.0
"""Seconds. A provider that asks for more is not waited for: the run would hold its place in the worker."""


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
        if not error.retryable or tries >= self.max_attempts:
            return None
        backoff = min(self.backoff_max_seconds, self.backoff_seconds * 2 ** (tries - 1))
        if error.retry_after is None:
            return self.uniform(0, backoff)
        if error.retry_after > LONGEST_RETRY_AFTER:
            return None
        # At least what the provider asked for; the jitter on top keeps its callers from coming back all at once.
        return error.retry_after + self.uniform(0, min(backoff, 1.0))


async def complete(
    model: Model, request: ModelRequest, policy: RetryPolicy, on_delta: OnDelta, on_retry: OnRetry
) -> ModelResponse:
    """One finished turn. Raises the last try's ModelError.

    `on_retry(number, error, pause)` is awaited before the pause that precedes try `number` (2, 3, ...): the deltas
    given so far are void.
    """
    tries = 0
    while True:
        tries += 1
        try:
            return await _try(model, request, on_delta)
        except ModelError as error:
            pause = policy.pause(tries, error)
            if pause is None:
                raise
            await on_retry(tries + 1, error, pause)
        await policy.sleep(pause)


async def _try(model: Model, request: ModelRequest, on_delta: OnDelta) -> ModelResponse:
    async with aclosing(model.stream(request)) as items:
        async for item in items:
            if isinstance(item, ModelResponse):
                return item
            await on_delta(item)
    raise AssertionError(f"{model.name}: a model's stream ends with a ModelResponse or raises ModelError")
