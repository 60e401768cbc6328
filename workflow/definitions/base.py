"""A kind of agent in code: what its runs are made of, and what is done when one of its agents begins or ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from shared.config.sandboxes import SandboxBounds
from shared.types import JSON


@dataclass(frozen=True, slots=True)
class Instance:
    """The agent that a hook is called for, as it was when its status changed."""

    id: str
    name: str
    workspace: str
    project: str | None = None
    knowledge: JSON = field(default_factory=dict)
    storage: JSON = field(default_factory=dict)
    metadata: JSON = field(default_factory=dict)


class BaseAgent:
    """Derive from it, and register the class in `load_agents(registry)`.

    Each hook is a durable step in a worker, and gets a new object: what is to last is kept elsewhere. It is called at
    least once: where a worker dies in the middle of one, another calls it again. What it does must bear that.
    """

    prompt: ClassVar[str | None] = None
    """Its system prompt. None: the settings'. So for all of these."""
    model: ClassVar[str | None] = None
    temperature: ClassVar[float | None] = None
    tools: ClassVar[Sequence[str] | None] = None
    limits: ClassVar[Mapping[str, float]] = {}
    """Of max_turns, max_seconds, max_cost, max_tokens."""
    sandbox: ClassVar[bool | SandboxBounds] = True
    """Whether it has one, or what bounds it."""
    permissions: ClassVar[Sequence[str]] = ()
    """Rules for its calls, such as `bash: deny rm *`, beside those of the settings."""

    def __init__(self, agent: Instance) -> None:
        self.agent = agent

    async def initialize(self) -> None:
        """Before the agent is activated for the first time."""

    async def activate(self) -> None:
        """The agent may be given runs from now on."""

    async def deactivate(self) -> None:
        """It is given no new runs; those under way go on."""

    async def shutdown(self) -> None:
        """The agent is done with, for good. Only called where it was active once."""

    @classmethod
    def has_hooks(cls) -> bool:
        return any(getattr(cls, name) is not getattr(BaseAgent, name) for name in HOOKS)


HOOKS = ("initialize", "activate", "deactivate", "shutdown")
