"""The gateway's counters in Redis: what many requests count at the same time is sent together, on one connection.

A pool would open a connection for each of a thousand streams that are opened at once.
"""

from typing import Any

from redis.asyncio import Redis

from gateway.stream.reader import Reader


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
