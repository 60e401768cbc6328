"""Agent-level events: one capped stream a workspace, of which every channel (an agent's, all agents') is a filter."""

from dataclasses import dataclass, field
from enum import StrEnum

import orjson
from redis.asyncio import Redis

from shared import keys
from shared.config import StreamSettings
from shared.redis import patiently
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
        self._client = client
        self._settings = settings
        self._patience_seconds = patience_seconds

    async def publish(self, event: ChannelEvent) -> str:
        """Its id. Repeated after a lost answer, an event may be there twice. Raises redis.RedisError."""
        fields = {"t": event.type.value, "r": event.agent_id, "p": event.project or "", "e": _encode(event)}

        async def add() -> str:
            key = keys.channel(event.workspace)
            pipeline = self._client.pipeline(transaction=False)
            pipeline.xadd(key, fields, maxlen=self._settings.agent_events, approximate=True)  # type: ignore[arg-type]
            pipeline.pexpire(key, int(self._settings.agent_event_seconds * 1000))
            # Says "look", and no more: a gateway that misses it looks by itself within seconds.
            pipeline.execute_command("SPUBLISH", key, "")
            event_id, *_ = await pipeline.execute()
            return event_id.decode() if isinstance(event_id, bytes) else str(event_id)

        return await patiently(add, self._patience_seconds)


def _encode(event: ChannelEvent) -> bytes:
    """Without its time, which Redis gives it: the time of its id."""
    head = orjson.dumps({"type": event.type, "workspace_id": event.workspace, "agent_id": event.agent_id})
    return b'%b,"data":%b}' % (head[:-1], encode_brief(event.data))
