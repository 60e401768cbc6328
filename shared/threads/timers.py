"""The agenda of threads: what is to be done at a time, by whoever has the shard (keys.timers)."""

from collections.abc import Iterable
from typing import Any

from redis.asyncio import Redis

from shared import keys
from shared.keys import thread_keys_of
from shared.redis import patiently, redis_ms


class Timers:
    """`patience_seconds`: as of `Scripts`. Scripts put things on it, in the same call as what asks for them."""

    def __init__(self, client: Redis, *, patience_seconds: float | None) -> None:
        self._client = client
        self._patience_seconds = patience_seconds

    async def due(self, shards: Iterable[int], limit: int) -> list[str]:
        """What is to be done by now, up to so many a shard."""
        now, shards = await redis_ms(self._client, self._patience_seconds), list(shards)
        pipeline = self._client.pipeline(transaction=False)
        for shard in shards:
            pipeline.zrangebyscore(keys.timers(shard), "-inf", now, start=0, num=limit)
        return [member for members in (await pipeline.execute() if shards else []) for member in members]

    async def postpone(self, timer: str, seconds: float) -> None:
        """It stays on the agenda, if it still is there."""
        due = await redis_ms(self._client, self._patience_seconds) + int(seconds * 1000)
        await self._do(lambda: self._client.zadd(_of(timer), {timer: due}, xx=True))

    async def done(self, timer: str) -> None:
        """Takes it off the agenda."""
        await self._do(lambda: self._client.zrem(_of(timer), timer))

    async def _do(self, call: Any) -> None:
        await patiently(call, self._patience_seconds)


def _of(timer: str) -> str:
    return thread_keys_of(timer.split("|")[1]).timers
