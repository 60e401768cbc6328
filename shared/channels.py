"""Agent-level events: one capped stream a workspace, of which every channel (an agent's, all agents') is a filter."""

from dataclasses import dataclass, field
from enum import StrEnum

import orjson
from redis.asyncio import Redis

from shared import keys
from shared.config import StreamSettings
from shared.scripts import Scripts
from shared.threads.brief import encode_brief
from shared.types import JSON

PATIENCE_SECONDS = 2.0


class ChannelEventType(StrEnum):
    STATUS_CHANGED = "agent_status_changed"
    ACTIVITY = "agent_activity"
    MESSAGE = "agent_message"
    CONTEXT_UPDATED = "agent_context_updated"


@dataclass(frozen=True, slots=True)
class ChannelEvent:
    """`data` has at most 64 KiB; of more, the longest fields are left out as in a run's events.

    `project`: of what it tells; whoever is limited to another one is not told.
    """

    type: ChannelEventType
    workspace: str
    agent_id: str
    data: JSON = field(default_factory=dict)
    project: str | None = None


class Channels:
    """Where agent-level events are published. `patience_seconds`: for a Redis that is away."""

    def __init__(
        self, client: Redis, settings: StreamSettings, *, patience_seconds: float | None = PATIENCE_SECONDS
    ) -> None:
        self._scripts = Scripts(client, __package__, "channel", patience_seconds=patience_seconds)
        kept = settings.agent_event_seconds
        # Longer than whoever has looked before the event can go on without looking again.
        known = kept + 2 * settings.max_seconds
        self._limits = [settings.agent_events, int(kept * 1000), int(known * 1000)]

    async def publish(self, event: ChannelEvent) -> str:
        """Its id. Repeated after a lost answer, an event may be there twice. Raises redis.RedisError."""
        fields = {"t": event.type.value, "r": event.agent_id, "p": event.project or "", "e": _encode(event)}
        names = [keys.channel(event.workspace), keys.channel_end(event.workspace)]
        pairs = [part for pair in fields.items() for part in pair]
        event_id = await self._scripts.call("channel", names, [*self._limits, *pairs], lasting=False)
        return event_id.decode() if isinstance(event_id, bytes) else str(event_id)


def _encode(event: ChannelEvent) -> bytes:
    """Without its time, which Redis gives it: the time of its id."""
    head = orjson.dumps({"type": event.type, "workspace_id": event.workspace, "agent_id": event.agent_id})
    return b'%b,"data":%b}' % (head[:-1], encode_brief(event.data))
