"""New work is refused before Redis is full, so that what already runs can finish."""

import time

from redis.asyncio import Redis

from shared.errors import AppError, ErrorCode

READ_AGAIN_SECONDS = 1.0
RETRY_SECONDS = 10.0


class Room:
    """`full_at`: the part of Redis' `maxmemory` in use from which it counts as full. A Redis without one never is."""

    def __init__(self, client: Redis, full_at: float) -> None:
        self._client = client
        self._full_at = full_at
        self._used = 0.0
        self._read_at = -READ_AGAIN_SECONDS

    async def check(self) -> None:
        """Raises AppError UNAVAILABLE. Reads Redis' memory at most once a second."""
        if time.monotonic() - self._read_at >= READ_AGAIN_SECONDS:
            self._read_at = time.monotonic()  # those who ask meanwhile go by the last answer
            memory = await self._client.info("memory")
            self._used = memory["used_memory"] / memory["maxmemory"] if memory["maxmemory"] else 0.0
        if self._used >= self._full_at:
            raise AppError(
                ErrorCode.UNAVAILABLE,
                f"Redis has {self._used:.0%} of its memory in use: new work is refused from {self._full_at:.0%} on, so "
                "that what runs can finish. Nothing is lost: try again later, or give Redis more memory.",
                retry_after=RETRY_SECONDS,
            )
