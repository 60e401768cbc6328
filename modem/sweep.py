"""The sweeper: dead workers' runs, and runs that nobody was told of. Every worker sweeps its share of the shards.

All it does may be done twice or by two workers at once: the store's scripts decide.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.config import WorkerSettings
from shared.ids import SHARDS
from shared.queue import QUEUE, RunQueue
from shared.threads.store import ThreadStore
from shared.workers.registry import WorkerRegistry

log = logging.getLogger("trunkline.sweep")

SHORT_QUEUE = 100
"""Messages in the broker's queue up to which a run is rung for again. A longer queue is late, not lossy."""
RINGS_PER_TICK = 100


class Sweeper:
    """`client` reads the indexes, `broker` the queue's length."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        client: Redis,
        broker: Redis,
        store: ThreadStore,
        registry: WorkerRegistry,
        queue: RunQueue,
    ) -> None:
        self._settings = settings
        self._client = client
        self._broker = broker
        self._store = store
        self._registry = registry
        self._queue = queue
        self._server: str | None = None
        self._patient_until = 0.0

    async def run(self, my_name: "NameSource") -> None:
        """Sweeps until cancelled."""
        while True:
            try:
                await self.tick(my_name.name)
            except RedisError as error:
                self._be_patient(self._settings.lease_seconds)
                log.warning("could not sweep: %s", error)
            await asyncio.sleep(self._settings.sweep_seconds)

    async def tick(self, my_name: str) -> None:
        """One sweep of this worker's shards."""
        await self._notice_a_restart()
        if time.monotonic() < self._patient_until:
            return
        for name in await self._registry.bury():
            log.warning("worker %s is gone", name)
        shards = share_of(my_name, await self._registry.names())
        await self._expire_orphans(shards)
        await self._ring_again(shards)

    async def _notice_a_restart(self) -> None:
        """A Redis that was away has let every lease end; the workers get one lease of time to renew."""
        server = await self._client.info("server")
        if self._server != server["run_id"]:
            self._server = server["run_id"]
            self._be_patient(self._settings.lease_seconds - server["uptime_in_seconds"])

    def _be_patient(self, seconds: float) -> None:
        self._patient_until = max(self._patient_until, time.monotonic() + seconds)

    async def _expire_orphans(self, shards: Sequence[int]) -> None:
        # The workers are read after the runs: a run's owner has registered before it claimed.
        pipeline = self._client.pipeline(transaction=False)
        for shard in shards:
            pipeline.hgetall(keys.live(shard))
        held = [item for found in await pipeline.execute() for item in found.items()] if shards else []
        if not held:
            return
        alive = set(await self._registry.names())
        for run_id, worker in held:
            if worker not in alive:
                log.warning("run %s loses its worker %s", run_id, worker)
                await self._queue.ring(
                    await self._store.expire(run_id, worker, max_attempts=self._settings.max_attempts)
                )

    async def _ring_again(self, shards: Sequence[int]) -> None:
        now = await self._now_ms()
        pipeline = self._client.pipeline(transaction=False)
        for shard in shards:
            pipeline.zrangebyscore(keys.timers(shard), "-inf", now, start=0, num=RINGS_PER_TICK)
        due = await pipeline.execute() if shards else []
        if not any(due) or await self._broker.llen(QUEUE) > SHORT_QUEUE:
            return
        for shard, members in zip(shards, due, strict=True):
            for member in members:
                # XX: a run that was claimed meanwhile stays out of the index.
                await self._client.zadd(keys.timers(shard), {member: now + self._settings.ring_seconds * 1000}, xx=True)
                await self._queue.ring(member.partition("|")[2])

    async def _now_ms(self) -> int:
        seconds, microseconds = await self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000


class NameSource(Protocol):
    """Whoever knows this worker's name at the moment (the lease)."""

    @property
    def name(self) -> str: ...


def share_of(my_name: str, names: Sequence[str]) -> list[int]:
    """The shards that this worker sweeps: all workers, sorted, take turns. None while it is not registered."""
    if my_name not in names:
        return []
    return list(range(names.index(my_name), SHARDS, len(names)))
