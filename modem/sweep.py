"""The sweeper: dead workers' runs, and runs that nobody was told of. Every worker sweeps its share of shards.

All it does may be done twice or by two workers at once: the store's scripts decide.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from redis.asyncio import Redis

from modem.metrics import ChoreMetrics
from shared import keys
from shared.config import WorkerSettings
from shared.ids import SHARDS
from shared.queue import RunQueue, queue_lengths
from shared.redis import passes
from shared.types import Priority
from shared.workers.registry import WorkerRegistry

log = logging.getLogger("trunkline.sweep")

SHORT_QUEUE = 100
"""Messages in the queue of a run's priority up to which it is rung for again. A longer one is late, not lossy."""
RINGS_PER_TICK = 1000
STRAY_SECONDS = 5.0
TAKEN_AT_ONCE = 20
POSTPONED_SECONDS = 30.0
"""For a run that cannot be taken: it is tried again after that."""


class Sweeper:
    """`client` reads the indexes, `broker` the queue's length. `running()`: the runs that this worker holds.

    `take_from(worker, run)` ends a worker's hold on a run and returns the run to ring for.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        client: Redis,
        broker: Redis,
        registry: WorkerRegistry,
        queue: RunQueue,
        running: Callable[[], Iterable[str]],
        take_from: Callable[[str, str], Awaitable[str | None]],
        metrics: ChoreMetrics,
    ) -> None:
        self._settings = settings
        self._client = client
        self._broker = broker
        self._registry = registry
        self._queue = queue
        self._running = running
        self._take_from = take_from
        self._findings = metrics.findings
        self._strays: set[tuple[str, str]] = set()
        self._look_for_strays_at = 0.0
        self._put_off: dict[str, float] = {}
        self._server: str | None = None
        self._patient_until = 0.0

    async def run(self, my_name: "NameSource") -> None:
        """Sweeps until cancelled."""
        while True:
            try:
                await self.tick(my_name.name)
            except Exception as error:
                if passes(error):  # Redis was away: perhaps for all, whose leases ended meanwhile
                    self._be_patient(self._settings.lease_seconds)
                log.warning("could not sweep: %s", error, exc_info=not passes(error))
            await asyncio.sleep(self._settings.sweep_seconds)

    async def tick(self, my_name: str | None) -> None:
        """One sweep of this worker's shards."""
        await self._notice_a_restart()
        if time.monotonic() < self._patient_until:
            return
        buried = await self._registry.bury()
        for name in buried:
            log.warning("worker %s is gone", name)
            self._findings.labels("dead_worker").inc()
        shards = share_of(my_name, await self._registry.names())
        # Whoever else has a share of the shards may have died too, without being buried yet.
        await self._expire_orphans(range(SHARDS) if buried else shards)
        await self._ring_again(shards)
        if my_name is not None and time.monotonic() > self._look_for_strays_at:
            self._look_for_strays_at = time.monotonic() + STRAY_SECONDS
            await self._take_strays(my_name)

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
        held = await self._held(shards)
        alive = set(await self._registry.names()) if held else set()
        await self._take([(worker, run_id) for worker, run_id in held if worker not in alive], "orphaned_run")

    async def _take_strays(self, my_name: str) -> None:
        """Runs claimed in this worker's name that it does not hold: nobody else can know of them.

        A claim of its that a network delivered late makes one. Twice in a row, because a claim may be on its way.
        """
        mine = {(worker, run_id) for worker, run_id in await self._held(range(SHARDS)) if worker == my_name}
        strays = mine - {(my_name, run_id) for run_id in self._running()}
        await self._take(strays & self._strays, "stray_run")
        self._strays = strays

    async def _held(self, shards: Sequence[int]) -> list[tuple[str, str]]:
        """Worker and run of each run that runs."""
        pipeline = self._client.pipeline(transaction=False)
        for shard in shards:
            pipeline.hgetall(keys.live(shard))
        found = await pipeline.execute() if shards else []
        return [(worker, run_id) for runs in found for run_id, worker in runs.items()]

    async def _take(self, held: Iterable[tuple[str, str]], finding: str) -> None:
        at_once = asyncio.Semaphore(TAKEN_AT_ONCE)

        async def take(worker: str, run_id: str) -> None:
            async with at_once:
                log.warning("run %s loses its worker %s", run_id, worker)
                self._findings.labels(finding).inc()
                try:
                    await self._queue.ring(await self._take_from(worker, run_id))
                except Exception as error:
                    if passes(error):
                        raise
                    # One run's broken data must not keep the others waiting.
                    log.exception("run %s cannot be taken from %s", run_id, worker)
                    self._put_off[run_id] = time.monotonic() + POSTPONED_SECONDS

        now = time.monotonic()
        self._put_off = {run_id: until for run_id, until in self._put_off.items() if until > now}
        await asyncio.gather(*(take(worker, run_id) for worker, run_id in held if run_id not in self._put_off))

    async def _ring_again(self, shards: Sequence[int]) -> None:
        now = await self._now_ms()
        pipeline = self._client.pipeline(transaction=False)
        for shard in shards:
            pipeline.zrangebyscore(keys.rings(shard), "-inf", now, start=0, num=RINGS_PER_TICK // len(shards))
        found = await pipeline.execute() if shards else []
        due = [(shard, run_id) for shard, run_ids in zip(shards, found, strict=True) for run_id in run_ids]
        short = await self._short_queues() if due else []
        if not short:
            return
        pipeline = self._client.pipeline(transaction=False)
        for shard, run_id in due:
            # XX: a run that was claimed meanwhile stays out of the index.
            pipeline.zadd(keys.rings(shard), {run_id: now + self._settings.ring_seconds * 1000}, xx=True)
        await pipeline.execute()
        self._findings.labels("late_run").inc(len(due))
        await self._queue.ring_again([run_id for _, run_id in due], short)

    async def _short_queues(self) -> list[Priority]:
        return [priority for priority, length in (await queue_lengths(self._broker)).items() if length <= SHORT_QUEUE]

    async def _now_ms(self) -> int:
        seconds, microseconds = await self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000


class NameSource(Protocol):
    """Whoever knows this worker's name at the moment (the lease)."""

    @property
    def name(self) -> str | None: ...


def share_of(my_name: str | None, names: Sequence[str]) -> list[int]:
    """The shards that this worker sweeps: all workers, sorted, take turns. None while it is not registered."""
    if my_name is None or my_name not in names:
        return []
    return list(range(names.index(my_name), SHARDS, len(names)))
