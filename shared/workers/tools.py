"""The tools that workers have: they tell of them in Redis, and the gateway reads it there."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import orjson
from redis.asyncio import Redis

from shared import keys
from shared.types import JSON

KEPT_SECONDS = 24 * 3600
"""Without a worker that tells of them again."""
TELL_SECONDS = 3600

ToolType = Literal["builtin", "custom", "http", "function", "mcp"]


@dataclass(frozen=True, slots=True)
class ToolCard:
    """`type` custom: of a user's module or package. `enabled`: agents are given it unless their run says otherwise."""

    name: str
    description: str
    type: ToolType
    effect: str
    enabled: bool
    input_schema: JSON


def catalogue_version(cards: Sequence[ToolCard], functions: Sequence[str]) -> str:
    """The same for workers that have the same tools and durable functions, but for MCP servers: they come and go."""
    own = sorted((asdict(card) for card in cards if card.type != "mcp"), key=lambda card: card["name"])
    told = orjson.dumps([sorted(functions), own])
    return hashlib.sha256(told).hexdigest()[:12]


async def tell_tools(client: Redis, cards: Sequence[ToolCard]) -> None:
    """In place of what was told before: of workers that differ, the last one's word counts. Raises RedisError."""
    await client.set(keys.TOOLS, orjson.dumps([asdict(card) for card in cards]), ex=KEPT_SECONDS)


async def told_tools(client: Redis) -> list[ToolCard]:
    """By name; none while no worker has told of any. Raises RedisError."""
    told = await client.get(keys.TOOLS)
    known = ToolCard.__dataclass_fields__
    found = [{name: value for name, value in card.items() if name in known} for card in orjson.loads(told or b"[]")]
    return sorted((ToolCard(**card) for card in found), key=lambda card: card.name)
