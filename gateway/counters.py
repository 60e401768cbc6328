"""The gateway's counters in Redis: what many requests count at the same time is sent together, on one connection.

A pool would open a connection for each of a thousand streams that are opened at once.
"""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, TypeVar

from limits.aio.storage import RedisStorage
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.stream.reader import Reader

log = logging.getLogger("trunkline.gateway.limits")

PATIENCE_SECONDS = 2.0
"""How long a request waits to be counted: long enough that a gateway under load, which is late itself, still counts."""
AWAY_SECONDS = 0.05
"""The same while Redis is known to be away. That it is back is noticed within half a second."""

T = TypeVar("T")


class Counters(Redis):
    """A client over another one, whose commands wait for a Redis that is away, and may be given twice.

    `run` must be running. A caller who does not want to wait cancels: the command is then not given.
    """

    def __init__(self, client: Redis) -> None:
        super().__init__(connection_pool=client.connection_pool)
        self._reader = Reader(client, lambda: None)

    @property
    def away(self) -> bool:
        """Whether Redis did not answer the last command."""
        return self._reader.away

    async def run(self) -> None:
        await self._reader.run()

    async def execute_command(self, *args: Any, **_: Any) -> Any:
        return await self._reader.ask(*args)


class WindowStorage(RedisStorage):
    """The scripts of the library that counts in windows, over our client."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        super().__init__("redis://", implementation="redispy", key_prefix="rate")

    def configure_bridge(self) -> None:
        bridge: Any = self.bridge
        bridge.storage, bridge.connection_getter = self._counters, lambda _: self._counters


async def unless_away(counters: Counters, counting: Awaitable[T]) -> T | None:
    """None where Redis does not answer in time."""
    try:
        async with asyncio.timeout(AWAY_SECONDS if counters.away else PATIENCE_SECONDS):
            return await counting
    except (RedisError, TimeoutError) as error:
        log.warning("a request was not counted, or its key not asked after: %r", error)
        return None
