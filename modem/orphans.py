"""The sweeper of what threads leave behind: now and then, a worker looks for sandboxes that nobody wants."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import orjson
from redis.asyncio import Redis

from modem.chores import is_first, now_and_then
from modem.sweep import NameSource
from shared import keys
from shared.db import history
from shared.db.engine import Database
from shared.keys import ThreadKeys
from shared.types import JSON
from shared.workers.registry import WorkerRegistry
from workflow.sandbox.orphans import Threads

log = logging.getLogger("trunkline.sweep")

PAUSE_SECONDS = 300.0

Sweep = Callable[[str, Threads], Awaitable[list[str]]]
"""Given the name of the Redis and its threads, removes what is of none and returns the ids."""


class OrphanSweeper:
    """`client` and `database` tell which threads are gone: those that neither has.

    `by_all`: each worker looks, for each may have other sandboxes near it.
    """

    def __init__(
        self, sweep: Sweep, client: Redis, database: Database, registry: WorkerRegistry, *, by_all: bool = False
    ) -> None:
        self._sweep = sweep
        self._database = database
        self._client = client
        self._registry = registry
        self._by_all = by_all

    async def run(self, my_name: NameSource) -> None:
        """Sweeps until cancelled."""
        await now_and_then(PAUSE_SECONDS, lambda: self.tick(my_name.name), "the search for orphan sandboxes")

    async def tick(self, my_name: str | None) -> list[str]:
        """One look, if it is this worker's. Returns the ids of what was removed."""
        if not (self._by_all or await is_first(my_name, self._registry)):
            return []
        redis = await self._client.get(keys.INSTALL)
        if redis is None:  # it was emptied since we started
            log.error("Redis does not know its own name any more: what its threads have left is not looked for")
            return []
        return await self._sweep(str(redis), self._threads)

    async def _threads(self, thread_ids: Sequence[str]) -> Mapping[str, JSON | None]:
        pipeline = self._client.pipeline(transaction=False)
        for thread_id in thread_ids:
            pipeline.hmget(ThreadKeys(thread_id).metadata, ["created_at", "sandbox"])
        found = await pipeline.execute() if thread_ids else []
        pairs = zip(thread_ids, found, strict=True)
        known = {thread_id: sandbox and orjson.loads(sandbox) for thread_id, (created, sandbox) in pairs if created}
        async with self._database.connect() as c:
            evicted = await history.threads_of(c, [thread_id for thread_id in thread_ids if thread_id not in known])
        refs = {thread.id: thread.record.get("sandbox") for thread in evicted}
        return known | {thread_id: ref and orjson.loads(ref) for thread_id, ref in refs.items()}
