"""What workers know beside their tools: kinds of agents, durable functions, templates, models.

They tell of it in Redis, and the gateway reads it there.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import orjson
from redis.asyncio import Redis

from shared import keys
from shared.errors import AppError, ErrorCode
from shared.types import JSON
from shared.workers.tools import KEPT_SECONDS

Source = Literal["builtin", "config", "code"]
RETRY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class DefinitionCard:
    """A kind of agent. None: what the settings say. `hooks`: its code has something to do when its agents begin or end.

    `limits`: max_turns, max_seconds, max_cost, max_tokens, those that it has of its own. `sandbox`: whether it has one.
    """

    id: str
    description: str
    source: Source
    prompt: str | None = None
    model: str | None = None
    temperature: float | None = None
    tools: Sequence[str] | None = None
    limits: JSON = field(default_factory=dict)
    sandbox: bool = True
    hooks: bool = False
    permissions: Sequence[str] | None = None
    """Rules for its calls, beside the settings'."""
    sandbox_config: JSON = field(default_factory=dict)
    """What bounds its sandbox (`AgentSandbox`)."""


@dataclass(frozen=True, slots=True)
class FunctionCard:
    name: str
    versions: Sequence[int]


@dataclass(frozen=True, slots=True)
class TemplateCard:
    name: str
    description: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """`release`: the worker's. `deployment`: that of the model of runs that name none, where it has a breaker."""

    release: str
    definitions: Sequence[DefinitionCard] = ()
    functions: Sequence[FunctionCard] = ()
    templates: Sequence[TemplateCard] = ()
    providers: Sequence[str] = ()
    """Those that models' names may begin with."""
    models: Sequence[str] = ()
    """Names that say no provider."""
    deployment: str | None = None

    @classmethod
    def parse(cls, told: JSON) -> Self:
        """What a newer release adds is left out."""
        cards = {
            "definitions": [DefinitionCard(**_known(DefinitionCard, card)) for card in told["definitions"]],
            "functions": [FunctionCard(**_known(FunctionCard, card)) for card in told["functions"]],
            "templates": [TemplateCard(**_known(TemplateCard, card)) for card in told["templates"]],
        }
        return cls(**_known(cls, told) | cards)

    def definition(self, name: str) -> DefinitionCard | None:
        return next((card for card in self.definitions if card.id == name), None)

    def has_model(self, name: str) -> bool:
        """Whether workers can place its name. Whether the provider knows it shows when it is called."""
        provider, slash, _ = name.partition("/")
        return provider in self.providers if slash else name in self.models


async def tell_catalogue(client: Redis, catalogue: Catalogue) -> None:
    """In place of what was told before: of workers that differ, the last one's word counts. Raises RedisError."""
    await client.set(keys.CATALOGUE, orjson.dumps(asdict(catalogue)), ex=KEPT_SECONDS)


async def told_catalogue(client: Redis) -> Catalogue | None:
    """None while no worker has told. Raises RedisError."""
    told = await client.get(keys.CATALOGUE)
    return None if told is None else Catalogue.parse(orjson.loads(told))


async def known_catalogue(client: Redis) -> Catalogue:
    """Raises AppError UNAVAILABLE while no worker has told, RedisError."""
    told = await told_catalogue(client)
    if told is None:
        raise AppError(
            ErrorCode.UNAVAILABLE,
            "No worker has started yet, so that nobody knows which agents, models and tools there are. Try again.",
            retry_after=RETRY_SECONDS,
        )
    return told


def _known(kind: Any, card: JSON) -> JSON:
    return {name: value for name, value in card.items() if name in kind.__dataclass_fields__}
