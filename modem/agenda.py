"""What the sweeper does for runs that wait: timers whose time has come, events to deliver, children's ends to tell."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from shared.errors import AppError
from shared.events.bus import Topic
from shared.events.outside import Outside

log = logging.getLogger("trunkline.agenda")

PER_SHARD = 50
"""Timers and topics of one shard in one tick."""
AT_ONCE = 20
POSTPONED_SECONDS = 30.0
BATCHES = 40
"""Of one topic's waiters in one tick."""


class Agenda:
    """All of it may be done twice: the store's scripts decide."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def tick(self, shards: Sequence[int]) -> None:
        """Raises RedisError when Redis is away."""
        timers = await self._outside.store.due(shards, PER_SHARD)
        topics = await self._outside.bus.deliveries(shards, PER_SHARD)
        await asyncio.gather(
            *(self._one(self._on_time, timer) for timer in timers),
            *(self._one(self._deliver, topic) for topic in topics),
        )

    async def _one(self, do: Callable[[Any], Awaitable[None]], what: str | Topic) -> None:
        async with self._slots:
            try:
                await do(what)
            except ResponseError:  # one run's broken data must not keep the others waiting
                log.exception("%s cannot be done", what)
            except AppError as error:  # the store of large results is away, or lost one
                log.warning("%s cannot be done now: %s", what, error.detail)
                if isinstance(what, str):
                    await self._outside.store.postpone(what, POSTPONED_SECONDS)

    async def _on_time(self, timer: str) -> None:
        await self._outside.ring(await self._outside.answers.on_time(timer))

    async def _deliver(self, topic: Topic) -> None:
        for _ in range(BATCHES):
            rings, more = await self._outside.answers.deliver(topic)
            await asyncio.gather(*(self._outside.ring(run_id) for run_id in rings))
            if not more:
                return
