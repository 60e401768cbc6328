"""The settings of what is allowed: to clients, to streams, to agents and to their runs."""

from typing import Annotated

from pydantic import Field

from shared.config.types import (
    Count,
    Dollars,
    Period,
    Seconds,
    Section,
    Share,
    Text,
)


class RateLimitSettings(Section):
    """How often one key may ask. Each class of routes has a limit of its own; docs/limits.md says which is which."""

    enabled: bool = Field(default=True, description="Whether requests are counted.")
    max_requests: Count = Field(default=100, description="Requests of a class that one key may make in a window.")
    window_seconds: Count = Field(default=60, description="Length of the window, which slides.")
    execute: Count | None = Field(
        default=None, description="Requests that start a run. Unset: max_requests.", examples=[600]
    )
    write: Count | None = Field(
        default=None, description="Requests that change anything else. Unset: max_requests.", examples=[600]
    )
    signal: Count | None = Field(
        default=None,
        description="Requests that reach runs under way: events, answers, messages, cancels. Unset: ten times "
        "max_requests.",
        examples=[6000],
    )
    read: Count | None = Field(
        default=None, description="Requests that change nothing. Unset: a hundred times max_requests.", examples=[60000]
    )
    stream: Count | None = Field(
        default=None,
        description="Streams opened, each reconnection too. Unset: a hundred times max_requests.",
        examples=[60000],
    )


class StreamSettings(Section):
    """Event streams, as the gateway serves them."""

    keep_alive_seconds: Seconds = Field(default=30, description="Silence after which a keep-alive is sent.")
    idle_timeout_seconds: Seconds = Field(
        default=300, description="Time without an event after which a stream is closed (408); the client may resume."
    )
    max_seconds: Seconds = Field(default=1800, description="Longest life of one connection; the client may resume.")
    max_per_key: Count = Field(
        default=1000, description="Streams that one key may hold open at the same time, on all gateways together."
    )
    retry_ms: Count = Field(
        default=1000, description="Milliseconds that an EventSource waits before it connects again."
    )
    slow_seconds: Seconds = Field(
        default=30, description="Time for which a WebSocket's client may take nothing of what it is sent."
    )
    ring_entries: Count = Field(
        default=1024, description="Newest events of a followed thread that a gateway holds in memory."
    )
    agent_events: Count = Field(
        default=10_000, description="Newest agent-level events of a workspace kept, about, for those who come back."
    )
    agent_event_seconds: Seconds = Field(default=86_400, description="How long they are kept after the last one.")
    check_seconds: Seconds = Field(default=15, description="Pause between checks that no published event was missed.")


class AgentSettings(Section):
    """Limits of one run, unless its agent or its request says otherwise."""

    max_turns: Count = Field(default=50, description="Model calls in one run.")
    max_seconds: Seconds = Field(default=3600, description="Time that one run may take; waiting does not count.")
    max_cost: Dollars | None = Field(
        default=None, description="US dollars that one run may cost. Unset: no limit.", examples=[2.5]
    )
    max_tokens: Count | None = Field(
        default=None, description="Tokens, read and written, that one run may use. Unset: no limit.", examples=[500_000]
    )
    compact_at: Share = Field(
        default=0.8,
        description="Share of the model's context that a conversation may fill before its older part is summed up.",
    )
    max_delegates: Annotated[int, Field(ge=0)] = Field(
        default=32, description="Agents that one run may start with delegate, together with those that they start."
    )
    delegate_models: list[Text] = Field(
        default=[],
        description="Models that an agent may give to those that it delegates to, beside its own, llm.model, "
        "llm.planning_model and llm.fallback_models.",
        examples=[["anthropic/claude-haiku-4-5"]],
    )
    system_prompt: Text | None = Field(
        default=None, description="Replaces the built-in system prompt.", examples=["You are a careful data analyst."]
    )
    coalesce_ms: Annotated[int, Field(ge=0)] = Field(
        default=30,
        description="Milliseconds for which text deltas are gathered into one event; the first goes at once.",
    )


class BudgetSettings(Section):
    """What threads, keys and workspaces may spend on model calls. Spending is counted while there is a limit."""

    thread_max_cost: Dollars | None = Field(
        default=None, description="US dollars that all runs of one thread may cost. Unset: no limit.", examples=[5]
    )
    thread_max_tokens: Count | None = Field(
        default=None, description="Tokens that all runs of one thread may use. Unset: no limit.", examples=[2_000_000]
    )
    thread_max_turns: Count | None = Field(
        default=None, description="Model calls of all runs of one thread. Unset: no limit.", examples=[500]
    )
    thread_max_seconds: Seconds | None = Field(
        default=None, description="Time that the runs of one thread may take. Unset: no limit.", examples=[36_000]
    )
    key_period: Period = Field(
        default="month", description="Time (UTC) for which a key's limits hold: day, month or total, which never ends."
    )
    key_max_cost: Dollars | None = Field(
        default=None, description="US dollars that one key's runs may cost in it. Unset: no limit.", examples=[50]
    )
    key_max_tokens: Count | None = Field(
        default=None, description="Tokens that one key's runs may use in it. Unset: no limit.", examples=[20_000_000]
    )
    key_max_turns: Count | None = Field(
        default=None, description="Model calls of one key's runs in it. Unset: no limit.", examples=[10_000]
    )
    key_max_seconds: Seconds | None = Field(
        default=None, description="Time that one key's runs may take in it. Unset: no limit.", examples=[360_000]
    )
    workspace_period: Period = Field(
        default="month", description="Time (UTC) for which a workspace's limits hold: day, month or total."
    )
    workspace_max_cost: Dollars | None = Field(
        default=None,
        description="US dollars that one workspace's runs may cost in it. Unset: no limit.",
        examples=[200],
    )
    workspace_max_tokens: Count | None = Field(
        default=None,
        description="Tokens that one workspace's runs may use in it. Unset: no limit.",
        examples=[100_000_000],
    )
    workspace_max_turns: Count | None = Field(
        default=None, description="Model calls of one workspace's runs in it. Unset: no limit.", examples=[50_000]
    )
    workspace_max_seconds: Seconds | None = Field(
        default=None,
        description="Time that one workspace's runs may take in it. Unset: no limit.",
        examples=[2_000_000],
    )
