"""How many streams one key holds open, on all gateways together.

Each is a lease in Redis, which its gateway renews: those of a gateway that was killed stop counting with it.
"""

import asyncio
import logging
import secrets

from redis.exceptions import RedisError

from gateway.auth import Principal
from gateway.counters import Counters, unless_away
from shared import keys
from shared.errors import AppError, ErrorCode
from shared.scripts import Scripts

log = logging.getLogger("trunkline.gateway.limits")

LEASE_SECONDS = 45.0
RENEW_SECONDS = 15.0
RETRY_SECONDS = 5.0


class OpenStreams:
    """`max_per_key`: a stream above that is refused."""

    def __init__(self, counters: Counters, max_per_key: int) -> None:
        self._counters = counters
        self._max = max_per_key
        self._scripts = Scripts(counters, __package__, "open_stream")
        self._mine: dict[str, str] = {}

    async def open(self, caller: Principal) -> str:
        """Counts a stream; returns its name, to close it by. Raises AppError RATE_LIMITED."""
        stream, key = secrets.token_hex(8), keys.streams(caller.workspace, caller.key_id)
        if await unless_away(self._counters, self._renew(key, [stream], self._max)) == 0:
            raise AppError(
                ErrorCode.RATE_LIMITED,
                f"This key has {self._max} streams open already (stream.max_per_key in the configuration). "
                "Close some, or follow several runs of a thread with one stream.",
                retry_after=RETRY_SECONDS,
            )
        self._mine[stream] = key
        return stream

    async def close(self, stream: str) -> None:
        """Never raises: the lease ends by itself where Redis is away."""
        key = self._mine.pop(stream)
        try:
            await self._counters.zrem(key, stream)
        except RedisError as error:
            log.info("a stream counts for some seconds more: %r", error)

    async def keep(self) -> None:
        """Renews the leases until cancelled."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._renew_all()
            except RedisError as error:
                log.warning("could not renew the leases of open streams: %r", error)

    async def _renew_all(self) -> None:
        by_key: dict[str, list[str]] = {}
        for stream, key in self._mine.items():
            by_key.setdefault(key, []).append(stream)
        for key, streams in by_key.items():
            await self._renew(key, streams, 0)

    async def _renew(self, key: str, streams: list[str], most: int) -> int:
        return int(await self._scripts.call("open_stream", [key], [int(LEASE_SECONDS * 1000), most, *streams]))
