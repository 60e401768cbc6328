"""Agent-level events: one capped stream a workspace, of which every channel (an agent's, all agents') is a filter."""

from dataclasses import dataclass, field
from enum import StrEnum

import orjson
from redis.asyncio import Redis

from shared import keys
from shared.config import StreamSettings
from shared.redis import patiently
from shared.types import JSON

PATIENCE_SECONDS = 2.0
MAX_ENTRIES = 10_000


class ChannelEventType(StrEnum):
    STATUS_CHANGED = "agent_status_changed"
    ACTIVITY = "agent_activity"
    MESSAGE = "agent_message"
    CONTEXT_UPDATED = "agent_context_updated"


@dataclass(frozen=True, slots=True)
class ChannelEvent:
    type: ChannelEventType
    workspace: str
    agent_id: str
    data: JSON = field(default_factory=dict)


class Channels:
    def __init__(self, client: Redis, settings: StreamSettings) -> None:
        self._client = client

    async def publish(self, event: ChannelEvent) -> str:
        """Its id. Repeated after a lost answer, an event may be there twice. Raises redis.RedisError."""
        shown = {"type": event.type, "workspace_id": event.workspace, "agent_id": event.agent_id, "data": event.data}
        fields = {"t": event.type.value, "r": event.agent_id, "e": orjson.dumps(shown)}

        async def add() -> str:
            name = keys.channel(event.workspace)
            return str(await self._client.xadd(name, fields, maxlen=MAX_ENTRIES, approximate=True))  # type: ignore[arg-type]

        return await patiently(add, PATIENCE_SECONDS)
