"""Hook runs that a gateway named in SQL and did not live to submit."""

import logging
from datetime import UTC, datetime, timedelta

from modem.chores import is_away, is_first, now_and_then
from modem.sweep import NameSource
from shared.catalogue.hooks import submit_hooks
from shared.db import agents
from shared.db.engine import Database
from shared.events.outside import Outside
from shared.workers.registry import WorkerRegistry

log = logging.getLogger("trunkline.modem")

EVERY_SECONDS = 15.0
LATE_SECONDS = 30.0
"""After the change of status: before that its gateway may be at it."""
AT_ONCE = 100


class HookSweeper:
    def __init__(self, database: Database, outside: Outside, registry: WorkerRegistry) -> None:
        self._database = database
        self._outside = outside
        self._registry = registry

    async def run(self, my_name: NameSource) -> None:
        """Until cancelled, when this worker has the first shard."""

        async def chore() -> None:
            if await is_first(my_name.name, self._registry):
                await self.tick(datetime.now(UTC))

        await now_and_then(EVERY_SECONDS, chore, "the search for hooks of agents")

    async def tick(self, now: datetime) -> None:
        """One that cannot be submitted keeps no other waiting. Raises AppError UNAVAILABLE, RedisError."""
        async with self._database.connect() as c:
            found = await agents.with_hooks_left(c, before=now - timedelta(seconds=LATE_SECONDS), limit=AT_ONCE)
        for agent in found:
            log.warning("hook run %s of agent %s had not been submitted", agent.hook_run, agent.id)
            try:
                _, ring = await submit_hooks(self._outside.store, self._database, agent, key_id=None)
            except Exception as error:
                if is_away(error):
                    raise
                log.exception("hook run %s of agent %s cannot be submitted", agent.hook_run, agent.id)
            else:
                await self._outside.ring(ring)
