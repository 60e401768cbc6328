"""Worker leases: register, renew, bury, list.

A worker may go on while its name is in the ZSET `workers`, even if its lease has ended without anybody noticing (Redis
was away): then it may still renew. Once a sweeper has buried it, it may not, and registers under a new name.
"""

import orjson
from redis.asyncio import Redis

from shared import keys
from shared.scripts import Scripts


class WorkerRegistry:
    """The fleet, seen through an asyncio client."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._scripts = Scripts(client, __package__, "alive", "bury")

    async def alive(self) -> list[str]:
        """Those whose lease goes on, sorted: whom to count on."""
        return sorted(await self._scripts.call("alive", [keys.WORKERS], []))

    async def names(self) -> list[str]:
        """Those who are not buried, sorted: whose runs nobody may take."""
        return sorted(str(name) for name in await self._client.zrange(keys.WORKERS, 0, -1))

    async def functions(self) -> set[str]:
        """The durable functions, as `name` and `name@version`, that a worker whose lease goes on has."""
        pipeline = self._client.pipeline(transaction=False)
        for name in await self.alive():
            pipeline.hget(keys.worker(name), "functions")
        return {function for card in await pipeline.execute() if card for function in orjson.loads(card)}

    async def bury(self) -> list[str]:
        """Removes workers whose lease has ended. Returns their names."""
        return list(await self._scripts.call("bury", [keys.WORKERS], []))
