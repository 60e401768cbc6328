"""The sweeper of sandboxes made elsewhere: one worker of all looks, now and then, for machines that nobody wants."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

import orjson
from redis.asyncio import Redis

from modem.sweep import NameSource, share_of
from shared.db import history
from shared.db.engine import Database
from shared.errors import AppError
from shared.keys import ThreadKeys
from shared.redis import passes
from shared.types import JSON
from shared.workers.registry import WorkerRegistry
from workflow.sandbox.base import SandboxError
from workflow.sandbox.machine import Cloud, MachineError
from workflow.sandbox.orphans import sweep_orphans

log = logging.getLogger("trunkline.sweep")

PAUSE_SECONDS = 300.0
FIRST_SHARD = 0


class OrphanSweeper:
    """`client` and `database` tell which threads exist: one that neither has wants no sandbox."""

    def __init__(self, cloud: Cloud, client: Redis, database: Database, registry: WorkerRegistry) -> None:
        self._database = database
        self._cloud = cloud
        self._client = client
        self._registry = registry

    async def run(self, my_name: NameSource) -> None:
        """Sweeps until cancelled."""
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            try:
                await self.tick(my_name.name)
            except (MachineError, SandboxError, AppError) as error:
                log.warning("could not look for orphan sandboxes: %s", error)
            except Exception as error:
                log.warning("could not look for orphan sandboxes: %s", error, exc_info=not passes(error))

    async def tick(self, my_name: str | None) -> list[str]:
        """One look, if it is this worker's: whoever has the first shard. Returns the ids of the machines removed."""
        if FIRST_SHARD not in share_of(my_name, await self._registry.names()):
            return []
        return await sweep_orphans(self._cloud, self._threads)

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
