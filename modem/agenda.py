"""What is done for runs that wait: timers whose time has come, events to deliver, children's ends to tell."""

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial

from modem.sweep import NameSource, share_of
from shared.errors import AppError
from shared.events.bus import Topic
from shared.events.outside import Outside
from shared.redis import passes
from shared.tasks import TimeLimit, cancel

log = logging.getLogger("trunkline.agenda")

PER_SHARD = 50
"""Timers and topics of one shard in one look."""
AT_ONCE = 20
STORE_AT_ONCE = 5
"""Of those that may wait for the store of large results."""
STORE_KINDS = ("tell", "blob", "gone")
ITEM_SECONDS = 10.0
DELIVERY_SECONDS = 2.0
"""Of one topic's waiters at one look."""
POSTPONED_SECONDS = 30.0


class Agenda:
    """All of it may be done twice: the store's scripts decide.

    What cannot be done is put off, so that it does not stand before the rest; nothing waits for what hangs.
    """

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._store_slots = asyncio.Semaphore(STORE_AT_ONCE)
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def run(self, my_name: NameSource, every_seconds: float) -> None:
        """Looks at this worker's shards until cancelled."""
        try:
            while True:
                try:
                    await self._begin(share_of(my_name.name, await self._outside.fleet.names()))
                except Exception as error:
                    log.warning("could not look at the agenda: %s", error, exc_info=not passes(error))
                await asyncio.sleep(every_seconds)
        finally:
            await cancel(self._under_way.values())

    async def tick(self, shards: Sequence[int]) -> None:
        """All that is due now, to its end. Raises RedisError when Redis is away."""
        await self._begin(shards)
        await asyncio.gather(*self._under_way.values())

    async def _begin(self, shards: Sequence[int]) -> None:
        timers = await self._outside.store.timers.due(shards, PER_SHARD)
        topics = await self._outside.bus.deliveries(shards, PER_SHARD)
        for item, is_topic in [*((timer, False) for timer in timers), *((topic, True) for topic in topics)]:
            if item not in self._under_way:
                task = self._under_way[item] = asyncio.create_task(self._one(item, is_topic))
                task.add_done_callback(partial(self._forget, item))

    def _forget(self, item: str, _: asyncio.Task[None]) -> None:
        del self._under_way[item]

    async def _one(self, item: str, is_topic: bool) -> None:
        try:
            async with self._store_slots if item.partition("|")[0] in STORE_KINDS else self._slots:
                if not await self._done(item, is_topic):
                    later = self._outside.bus.postpone if is_topic else self._outside.store.timers.postpone
                    await later(item, POSTPONED_SECONDS)
        except Exception as error:
            log.warning("%s could not be put off: %s", item, error, exc_info=not passes(error))

    async def _done(self, item: str, is_topic: bool) -> bool:
        """Raises RedisError when Redis is away."""
        try:
            async with TimeLimit(ITEM_SECONDS):
                return await (self._deliver(item) if is_topic else self._on_time(item))
        except AppError as error:  # the store of large results is away, or lost one
            log.warning("%s cannot be done now: %s", item, error.detail)
        except Exception as error:
            if passes(error):
                raise
            log.exception("%s cannot be done", item)
        return False

    async def _on_time(self, timer: str) -> bool:
        await self._outside.ring(await self._outside.answers.on_time(timer))
        return True

    async def _deliver(self, member: str) -> bool:
        """Whether all waiters that had their turn could be answered."""
        topic, failed, more = Topic.parse(member), 0, True
        enough = time.monotonic() + DELIVERY_SECONDS
        while more and time.monotonic() < enough:
            delivered = await self._outside.answers.deliver(topic, skip=failed)
            await asyncio.gather(*(self._outside.ring(run_id) for run_id in delivered.rings))
            failed, more = failed + delivered.failed, delivered.more
        return failed == 0
