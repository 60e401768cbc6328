"""Worker leases: register, renew, bury, list.

A worker is alive while its name is in the ZSET `workers`. Its lease may have ended without anybody noticing (Redis was
away): then it may still renew. Once a sweeper has buried it, it may not, and registers under a new name.
"""

from importlib.resources import files

from redis.asyncio import Redis

from shared import keys
from shared.types import JSON


class WorkerRegistry:
    """The fleet, seen through an asyncio client."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._bury = client.register_script(files(__package__).joinpath("bury.lua").read_text())

    async def bury(self) -> list[str]:
        """Removes workers whose lease has ended. Returns their names."""
        return list(await self._bury(keys=[keys.WORKERS]))

    async def names(self) -> list[str]:
        """Those alive, sorted."""
        return sorted(str(name) for name in await self._client.zrange(keys.WORKERS, 0, -1))

    async def describe(self) -> list[JSON]:
        """Each worker alive as it described itself, with its name."""
        names = await self.names()
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.hgetall(keys.worker(name))
        cards = await pipeline.execute() if names else []
        return [{"name": name, **card} for name, card in zip(names, cards, strict=True)]
