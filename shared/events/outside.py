"""What a run reaches beyond its own keys: the store for children, the event bus, the list of approvals,
the queue, and the fleet."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

from redis.asyncio import Redis

from shared.catalogue.agents import AgentCatalogue
from shared.config import Settings
from shared.db.engine import Database
from shared.events.answers import Answers, Approvals
from shared.events.bus import EventBus
from shared.history.revival import Revival
from shared.payloads.payloads import Payloads
from shared.threads.store import ThreadStore
from shared.workers.registry import WorkerRegistry


@dataclass(frozen=True, slots=True)
class Outside:
    """`ring(run id)` tells the queue that a run may be runnable."""

    store: ThreadStore
    bus: EventBus
    approvals: Approvals
    answers: Answers
    ring: Callable[[str | None], Awaitable[None]]
    fleet: WorkerRegistry
    agents: AgentCatalogue | None = None
    """None: there is no database."""

    async def close(self) -> None:
        """The client is not its own."""
        await self.store.payloads.close()

    @classmethod
    def over(
        cls,
        client: Redis,
        settings: Settings,
        ring: Callable[[str | None], Awaitable[None]],
        *,
        patience_seconds: float | None,
        database: Database | None = None,
    ) -> Self:
        """`patience_seconds`: how long a call waits for a Redis that is away (None: as long as it takes).

        `database`: where evicted threads are; None: there are none.
        """
        replicas = settings.redis.replicas
        cold = Revival(client, database, patience_seconds=patience_seconds, replicas=replicas) if database else None
        payloads = Payloads.over(
            client, settings, patience_seconds=patience_seconds, elsewhere=cold.blob if cold else None
        )
        ring_seconds = settings.worker.ring_seconds
        store = ThreadStore(
            client,
            ring_seconds=ring_seconds,
            patience_seconds=patience_seconds,
            replicas=replicas,
            payloads=payloads,
            cold=cold,
        )
        bus = EventBus(
            client,
            retention_seconds=settings.events.retention_seconds,
            max_events=settings.events.max_events,
            patience_seconds=patience_seconds,
            replicas=replicas,
        )
        approvals = Approvals(client, patience_seconds=patience_seconds)
        answers, fleet = Answers(store, bus, approvals), WorkerRegistry(client)
        agents = AgentCatalogue(settings, client, database) if database else None
        return cls(store, bus, approvals, answers, ring, fleet, agents)
