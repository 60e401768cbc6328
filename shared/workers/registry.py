"""Worker leases: register, renew, bury, list.

A worker may go on while its name is in the ZSET `workers`, even if its lease has ended without anybody noticing (Redis
was away): then it may still renew. Once a sweeper has buried it, it may not, and registers under a new name.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import orjson
from redis.asyncio import Redis

from shared import keys
from shared.ids import SHARDS
from shared.scripts import Scripts
from shared.threads.types import time_of


@dataclass(frozen=True, slots=True)
class WorkerCard:
    """What a worker tells of itself. `catalogue` names what it can run: the same for workers that know the same.

    What is None was not told: by an older release, or because there is none.
    """

    name: str
    alive: bool
    label: str
    host: str
    pid: int
    since: datetime | None
    version: str | None
    catalogue: str | None
    metrics_port: int | None


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

    async def cards(self) -> list[WorkerCard]:
        """Of all that are not buried, by name."""
        names, alive = await self.names(), set(await self.alive())
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.hgetall(keys.worker(name))
        told = zip(names, await pipeline.execute(), strict=True)
        return [_card(name, card, alive=name in alive) for name, card in told if card]

    async def runs_held(self) -> Counter[str]:
        """How many runs each worker has."""
        pipeline = self._client.pipeline(transaction=False)
        for shard in range(SHARDS):
            pipeline.hvals(keys.live(shard))
        return Counter(name for holders in await pipeline.execute() for name in holders)

    async def functions(self) -> set[str]:
        """The durable functions, as `name` and `name@version`, that a worker whose lease goes on has."""
        pipeline = self._client.pipeline(transaction=False)
        for name in await self.alive():
            pipeline.hget(keys.worker(name), "functions")
        return {function for card in await pipeline.execute() if card for function in orjson.loads(card)}

    async def bury(self) -> list[str]:
        """Removes workers whose lease has ended. Returns their names."""
        return list(await self._scripts.call("bury", [keys.WORKERS], []))


def _card(name: str, told: dict[str, str], *, alive: bool) -> WorkerCard:
    port, since = told.get("metrics_port"), told.get("since")
    return WorkerCard(
        name=name,
        alive=alive,
        label=told["label"],
        host=told["host"],
        pid=int(told["pid"]),
        since=time_of(since) if since else None,
        version=told.get("version"),
        catalogue=told.get("catalogue"),
        metrics_port=int(port) if port else None,
    )
