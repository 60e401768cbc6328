"""The producer's half of Celery: a message says "this run may be runnable" and carries its id, nothing else.

A message may be lost, late or doubled: `claim` decides, and the sweeper rings again. There is a queue for each
priority; workers take from them in that order.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from celery import Celery
from kombu.exceptions import OperationalError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.redis import patiently
from shared.slots.slots import Entrant, Ring, Slots, entrants, group_of
from shared.types import Priority, RunStatus

EXECUTE_RUN = "trunkline.execute_run"
QUEUE = "runs"
QUEUES: Mapping[Priority, str] = {Priority.HIGH: f"{QUEUE}.high", Priority.NORMAL: QUEUE, Priority.LOW: f"{QUEUE}.low"}

RING_SECONDS = 2.0

log = logging.getLogger("trunkline.queue")


def celery_app(broker_url: str) -> Celery:
    """Celery with the settings that both its halves need. JSON only; no results; Redis' answers awaited for 5 s."""
    app = Celery("trunkline", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        task_queues={name: {"exchange": name, "routing_key": name} for name in QUEUES.values()},
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend=None,
        task_publish_retry=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            # Messages are acknowledged when taken, and runs recovered without them: no books are kept of those taken.
            "ack_emulation": False,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
            # BRPOP's keys in the order of `task_queues`. Kombu's own priorities would be four more lists a queue.
            "queue_order_strategy": "priority",
            "priority_steps": [0],
        },
    )
    return app


async def queue_lengths(broker: Redis) -> dict[Priority, int]:
    """Messages that no worker has taken yet."""
    pipeline = broker.pipeline(transaction=False)
    for name in QUEUES.values():
        pipeline.llen(name)
    return dict(zip(QUEUES, await pipeline.execute(), strict=True))


class RunQueue:
    """Tells workers of runnable runs. Kombu's publishing blocks, so it has a few threads of its own.

    `client` reads runs' records. `slots`: where workspaces have a limit; a run of a full one is parked instead.
    `agent_slots`: likewise where agents have one; a run asks for its agent's slot first.
    """

    def __init__(
        self, app: Celery, client: Redis, slots: Slots | None = None, *, agent_slots: Slots | None = None
    ) -> None:
        self._app = app
        self._client = client
        self._slots = slots
        self._agent_slots = agent_slots
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="ring")

    async def ring(self, run_id: str | None, *, priority: Priority | None = None) -> None:
        """Waits for `RING_SECONDS` at most, and never raises for a Redis that is away: the sweeper rings again.

        `priority`: the run's, of a caller who knows it, and that it is no agent's; then its record need not be read.
        """
        if run_id is None:
            return
        try:
            async with asyncio.timeout(RING_SECONDS):
                await patiently(lambda: self._ring(run_id, priority), RING_SECONDS)
        except (OperationalError, RedisError, OSError) as error:  # a TimeoutError is an OSError
            log.warning("could not ring for run %s (%r); the sweeper will", run_id, error)

    async def _ring(self, run_id: str, priority: Priority | None) -> None:
        if priority is None or self._slots is not None:
            await self._tell(await self._let_in(await self._records([run_id])))
        else:
            await self._tell([Ring(run_id, priority)])

    async def ring_again(self, run_ids: Sequence[str], priorities: Collection[Priority]) -> None:
        """For those of the runs that are of these priorities: nobody took them in time. Raises RedisError."""
        runs = [run for run in await self._records(run_ids) if run.priority in priorities]
        await self._tell_if_possible(await self._let_in(runs))

    async def admit(self, run_id: str) -> bool:
        """Whether a worker may claim the run now; otherwise somebody rings for it in time.

        Where there are limits, it waits for a Redis that is away, as long as it takes.
        """
        if self._slots is None and self._agent_slots is None:
            return True
        return await patiently(lambda: self._admit(run_id), None)

    async def _admit(self, run_id: str) -> bool:
        runs = await self._records([run_id])
        if not runs or runs[0].status != RunStatus.PENDING:
            await self._free(runs)
            return False
        rings = await self._let_in(runs)
        await self._tell_if_possible([ring for ring in rings if ring.run_id != run_id])
        return any(ring.run_id == run_id for ring in rings)

    async def leave(self, run_id: str, *, patience_seconds: float | None) -> None:
        """An attempt has ended. Unless the run goes on elsewhere, others may go on in its place."""
        if self._slots is not None or self._agent_slots is not None:
            await patiently(lambda: self._leave(run_id), patience_seconds)

    async def _leave(self, run_id: str) -> None:
        await self._free(await self._records([run_id]))

    async def _free(self, runs: Sequence[Entrant]) -> None:
        for run in runs:
            if run.holds_a_slot:
                continue
            if self._slots is not None:
                await self._tell_if_possible(await self._slots.free(run.workspace, run.run_id))
            if self._agent_slots is not None and run.agent is not None:
                rings = await self._agent_slots.free(group_of(run), run.run_id)
                following = await self._records([ring.run_id for ring in rings])
                await self._tell_if_possible(await self._into_workspaces(following))

    async def _records(self, run_ids: Sequence[str]) -> list[Entrant]:
        return [run for run in await entrants(self._client, run_ids) if run is not None]

    async def _let_in(self, runs: Sequence[Entrant]) -> list[Ring]:
        return await self._into_workspaces(await self._past_agents(runs))

    async def _past_agents(self, runs: Sequence[Entrant]) -> list[Entrant]:
        """Those that have their agent's slot, or need none, and those that have got one by the way."""
        if self._agent_slots is None:
            return list(runs)
        groups = defaultdict(list)
        for run in runs:
            if run.agent is not None:
                groups[group_of(run)].append(run)
        found = await asyncio.gather(*(self._agent_slots.ask(name, each) for name, each in groups.items()))
        let_in, known = {ring.run_id for rings in found for ring in rings}, {run.run_id for run in runs}
        own = [run for run in runs if run.agent is None or run.run_id in let_in]
        return [*own, *await self._records(sorted(let_in - known))]

    async def _into_workspaces(self, runs: Sequence[Entrant]) -> list[Ring]:
        if self._slots is None:
            return [Ring(run.run_id, run.priority) for run in runs]
        workspaces = defaultdict(list)
        for run in runs:
            workspaces[run.workspace].append(run)
        found = await asyncio.gather(*(self._slots.ask(name, each) for name, each in workspaces.items()))
        return [ring for rings in found for ring in rings]

    async def _tell_if_possible(self, rings: Sequence[Ring]) -> None:
        try:
            await self._tell(rings)
        except (OperationalError, OSError) as error:
            log.warning("could not ring for %d runs (%r); the sweeper will", len(rings), error)

    async def _tell(self, rings: Sequence[Ring]) -> None:
        if rings:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._send, rings)

    async def warm_up(self) -> None:
        """Loads what the first message would (0.3 s of imports, a connection), before somebody waits for it."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._connect)
        except (OperationalError, OSError) as error:
            log.warning("the broker is away (%s)", error)

    def _connect(self) -> None:
        with self._app.producer_or_acquire() as producer:
            producer.connection.ensure_connection(max_retries=1, interval_start=0)
        assert self._app.backend  # made, and its module loaded, when first looked at

    def _send(self, rings: Sequence[Ring]) -> None:
        for ring in rings:
            self._app.send_task(EXECUTE_RUN, args=[ring.run_id], queue=QUEUES[ring.priority])

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._app.close()
