"""The settings of agents as lasting instances, and of kinds of agents that are described rather than programmed."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from shared.config.sandboxes import SandboxBounds
from shared.config.types import Count, Dollars, Permission, Seconds, Section, Text

DefinitionName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_-]{0,63}$")]


class AgentDefinition(Section):
    """A kind of agent as data. What is not given comes from the other settings."""

    description: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
    prompt: Text | None = None
    model: Text | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    tools: list[Text] | None = None
    sandbox: bool | SandboxBounds = True
    """Whether it has one, or what bounds it."""
    permissions: list[Permission] = Field(default=[])
    """Rules for its calls, beside tools.permissions."""
    max_turns: Count | None = None
    max_seconds: Seconds | None = None
    max_cost: Dollars | None = None
    max_tokens: Count | None = None


class AgentsSettings(Section):
    """Agents as lasting instances with contexts and messages; see docs/agents.md."""

    enabled: bool = Field(default=True, description="Offer them. Threads and runs without an agent are there anyway.")
    max_concurrency: Count = Field(
        default=10, description="Runs of one agent that may go on at the same time; further ones wait for their turn."
    )
    context_history_limit: Count = Field(default=100, description="Versions of a context that are kept.")
    message_retention_limit: Count = Field(default=1000, description="Messages of an agent that are kept.")
    message_ack_window_seconds: Seconds = Field(
        default=3600, description="Time in which a message may be acknowledged."
    )
    registry_modules: list[Text] = Field(
        default=[], description="Python modules whose load_agents(registry) registers kinds of agents."
    )
    definitions: dict[DefinitionName, AgentDefinition] = Field(
        default={},
        description="Kinds of agents as data: tables [agents.definitions.NAME] with description, prompt, model, "
        "temperature, tools, permissions, sandbox, max_turns, max_seconds, max_cost and max_tokens. One named like a "
        "built-in one replaces it.",
    )
    response_cache: Literal["none", "memory", "redis"] = Field(
        default="none",
        description="Where answers of models are kept for the very same request at temperature 0: none, memory (of "
        "each worker) or redis (of all).",
    )
