"""Redis clients by role, and the rule for what is worth trying again."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import redis.exceptions as errors
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

T = TypeVar("T")


class NotReplicated(errors.RedisError):
    """A change is there, but not yet on as many replicas as it must be: call again."""


# What passes by itself: the server is away, starting, failing over, or (MISCONF) cannot write its log for now.
_PASSING = (
    errors.ConnectionError,
    errors.TimeoutError,
    errors.BusyLoadingError,
    errors.TryAgainError,
    errors.ClusterDownError,
    errors.MasterDownError,
    errors.ReadOnlyError,
    errors.OutOfMemoryError,
    NotReplicated,
)
_PASSING_WORDS = ("MISCONF", "NOREPLICAS", "UNBLOCKED")


def connect(url: str, *, timeout_seconds: float, max_connections: int, text: bool = True) -> Redis:
    """A client with its pool. `text`: answers as str, else as bytes (streams are sent on as they are).

    A call waits for a free connection when all are in use, at most `timeout_seconds`.

    It does not retry by itself: `patiently` does, around calls that are safe to repeat.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        timeout=timeout_seconds,
        max_connections=max_connections,
        decode_responses=text,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        socket_keepalive=True,
        health_check_interval=25,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)


def passes(error: Exception) -> bool:
    """Whether the same call may succeed later without anything being mended by its caller."""
    if isinstance(error, errors.ResponseError) and str(error).startswith(_PASSING_WORDS):
        return True
    return isinstance(error, _PASSING) and not isinstance(error, errors.AuthenticationError)


async def patiently(call: Callable[[], Awaitable[T]], patience_seconds: float | None) -> T:
    """Repeats a call that is safe to repeat while Redis is away: for so many seconds, or (None) until it is back."""
    deadline = None if patience_seconds is None else time.monotonic() + patience_seconds
    pause = 0.02
    while True:
        try:
            return await call()
        except errors.RedisError as error:
            if not passes(error) or (deadline is not None and time.monotonic() + pause > deadline):
                raise
        await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
        pause = min(pause * 2, 1.0)


async def redis_ms(client: Redis, patience_seconds: float | None) -> int:
    """Redis' time, in milliseconds. `patience_seconds`: as of `patiently`."""
    seconds, microseconds = await patiently(client.time, patience_seconds)
    return int(seconds) * 1000 + int(microseconds) // 1000
