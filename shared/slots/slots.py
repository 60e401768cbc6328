"""Slots of workspaces and of agents: with the Lua scripts beside it, the only code that changes who has one.

Whoever rings for a run asks for its slot first: a run that finds its workspace full is parked, and is rung for by
whoever gives a slot back. So a tenant's flood waits here, and not in the queue that all tenants share. The worker asks
again before it claims, and gives the slot back when the run no longer runs.

A slot outlives its worker, because the run will go on: it is free when its run is neither pending nor running. A slot
that nobody gave back (its worker died just then) is found when somebody finds the workspace full.
"""

import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import orjson
from redis.asyncio import Redis

from shared import keys
from shared.config import Settings
from shared.keys import thread_keys_of
from shared.scripts import Scripts
from shared.types import Priority, RunStatus

CHECK_MS = 5_000
"""Pause between looks for stale slots of a full workspace, and the age at which a slot may be one."""
PARKED_MS = 20_000
"""After about so long the sweeper rings for a parked run, in case that nobody else did."""
LEVEL = 1e13
"""In a rank, priority goes before age: more than any time in milliseconds."""
LEVELS = tuple(Priority)
READ = ("workspace", "status", "created_at", "parameters", "cancel", "agent_id")
"""Of a run's record, what an entrant is made of."""

log = logging.getLogger("trunkline.slots")


@dataclass(frozen=True, slots=True)
class Entrant:
    """What a run's record says to whoever rings for it."""

    run_id: str
    workspace: str
    status: str
    """Perhaps one of a newer release."""
    priority: Priority
    created_ms: int
    only_ends: bool = False
    """Somebody asked for its end: it needs no slot for that."""
    agent: str | None = None

    @property
    def rank(self) -> float:
        return LEVELS.index(self.priority) * LEVEL + self.created_ms

    @property
    def holds_a_slot(self) -> bool:
        return self.status in (RunStatus.PENDING, RunStatus.RUNNING)

    @classmethod
    def parse(cls, run_id: str, record: Sequence[str | None]) -> Self | None:
        workspace, status, created, parameters, cancel, agent = record
        if workspace is None or status is None or created is None:
            return None
        priority = orjson.loads(parameters or "{}").get("priority")
        known = Priority(priority) if priority in LEVELS else Priority.NORMAL
        return cls(run_id, workspace, status, known, int(created), only_ends=cancel is not None, agent=agent)


@dataclass(frozen=True, slots=True)
class Ring:
    """A run to tell the queue of."""

    run_id: str
    priority: Priority


class Slots:
    """`limit`: runs of one workspace at the same time. Calls may be repeated, and raise RedisError."""

    def __init__(self, client: Redis, limit: int, *, ring_seconds: float) -> None:
        self._client = client
        self._limit = limit
        self._ring_ms = int(ring_seconds * 1000)
        self._scripts = Scripts(client, __package__, "ask", "free")

    async def ask(self, workspace: str, runs: Sequence[Entrant]) -> list[Ring]:
        """Runs of one workspace want to go on. Returns all that may now; who asked and is not among them is parked.

        A run that only ends may at once, beyond the limit: whoever canceled it does not wait for other runs' ends.
        """
        names = [*_keys(workspace), keys.slots_checked(workspace)]
        args = [self._limit, CHECK_MS, *(word for run in runs for word in (run.run_id, run.rank, int(run.only_ends)))]
        granted, suspects, now = await self._scripts.call("ask", names, args)
        rings = _rings(granted)
        may = {ring.run_id for ring in rings}
        asked = {run.run_id for run in runs}
        await self._ring_later(int(now), soon=may - asked, late=asked - may)
        if suspects:
            rings += await self._free_stale(workspace, _pairs(suspects))
        return rings

    async def free(self, workspace: str, run_id: str) -> list[Ring]:
        """The run's slot is given back. Returns the runs that may go on instead."""
        return await self._give_back(workspace, [run_id, ""])

    async def _free_stale(self, workspace: str, suspects: list[tuple[str, str]]) -> list[Ring]:
        runs = await entrants(self._client, [run_id for run_id, _ in suspects])
        stale = [pair for pair, run in zip(suspects, runs, strict=True) if run is None or not run.holds_a_slot]
        return await self._give_back(workspace, [word for pair in stale for word in pair]) if stale else []

    async def _give_back(self, workspace: str, pairs: list[str]) -> list[Ring]:
        granted, now = await self._scripts.call("free", _keys(workspace), [self._limit, *pairs])
        rings = _rings(granted)
        await self._ring_later(int(now), soon=[ring.run_id for ring in rings], late=[])
        return rings

    async def _ring_later(self, now: int, *, soon: Iterable[str], late: Iterable[str]) -> None:
        """When the sweeper is to ring for them. The parked ones at various times: it cannot do all at once."""
        due = dict.fromkeys(soon, now + self._ring_ms)
        due |= {run_id: now + int(PARKED_MS * random.uniform(0.75, 1.25)) for run_id in late}  # noqa: S311 - no secret
        pipeline = self._client.pipeline(transaction=False)
        for run_id, at in due.items():
            # XX: a run that was claimed meanwhile stays out of the index.
            pipeline.zadd(thread_keys_of(run_id).rings, {run_id: at}, xx=True)
        await pipeline.execute()


def slots_of(settings: Settings, client: Redis) -> Slots | None:
    """None where workspaces have no limit."""
    limit = settings.worker.workspace_concurrency
    return Slots(client, limit, ring_seconds=settings.worker.ring_seconds) if limit else None


def agent_slots_of(settings: Settings, client: Redis) -> Slots:
    """Those of single agents: their names are `group_of`'s."""
    return Slots(client, settings.agents.max_concurrency, ring_seconds=settings.worker.ring_seconds)


def group_of(run: Entrant) -> str:
    """Under which a run of an agent asks for one of that agent's slots."""
    return f"{run.workspace}/{run.agent}"


async def entrants(client: Redis, run_ids: Sequence[str]) -> list[Entrant | None]:
    """In the order given, None for a run that is not there or not to be read; in one round trip. Raises RedisError."""
    pipeline = client.pipeline(transaction=False)
    for run_id in run_ids:
        pipeline.hmget(thread_keys_of(run_id).run(run_id), *READ)
    found = await pipeline.execute()
    return [_entrant(run_id, record) for run_id, record in zip(run_ids, found, strict=True)]


def _entrant(run_id: str, record: Sequence[str | None]) -> Entrant | None:
    try:
        return Entrant.parse(run_id, record)
    except (ValueError, TypeError, AttributeError):  # one run's broken data must not keep the others waiting
        log.exception("run %s cannot be read", run_id)
        return None


def _keys(workspace: str) -> list[str]:
    return [keys.slots(workspace), keys.parked(workspace)]


def _rings(granted: list[str]) -> list[Ring]:
    return [Ring(run_id, LEVELS[int(float(rank) // LEVEL)]) for run_id, rank in _pairs(granted)]


def _pairs(flat: list[str]) -> list[tuple[str, str]]:
    return list(zip(flat[::2], flat[1::2], strict=True))
