"""The words every package shares: statuses, event types and the event itself (docs/architecture.md, "Words")."""

from enum import StrEnum
from typing import Any

JSON = dict[str, Any]


class Runnable(StrEnum):
    """What a run executes."""

    AGENT = "agent"
    TEAM = "team"
    WORKFLOW = "workflow"
    FUNCTION = "function"


FUNCTION_PARAMETERS = frozenset({"max_seconds", "priority"})
"""Of a run's parameters, those that a durable function's run heeds; an agent's heeds all."""
AGENT_PARAMETERS = FUNCTION_PARAMETERS | {
    *("model", "temperature", "tools", "permissions", "max_turns", "max_cost", "max_tokens", "max_delegates"),
    "allowed_hosts",
}

RESERVED = "trunkline."
"""With this begin the names of durable functions that are ours, and that no client may run."""
AGENT_HOOKS = f"{RESERVED}agent_hooks"
TOOL_TRIAL = f"{RESERVED}tool_trial"


class Scope(StrEnum):
    """What a caller may do. Each stands alone, but for `admin`, which has all of them."""

    READ = "read"
    RUN = "run"
    """Open threads, execute, answer, cancel."""
    WRITE = "write"
    """Change the catalogue: agents, tools, workflows, projects."""
    ADMIN = "admin"
    """Say who may what."""


class RunStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def terminal(self) -> bool:
        return self in (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELED)


class Priority(StrEnum):
    """Which of the waiting runs a worker takes first; in this order."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class StepStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    WAITING_HUMAN = "waiting_human"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELED = "canceled"


class EventType(StrEnum):
    """The built-in event types. A tool may add one of its own (`plan`, `todo`, `file`, ...)."""

    RUN_QUEUED = "run.queued"
    RUN_STARTED = "run.started"
    RUN_RESUMED = "run.resumed"
    RUN_INTERRUPTED = "run.interrupted"
    RUN_WAITING = "run.waiting"
    RUN_ROLLED_BACK = "run.rolled_back"
    RUN_COMPLETED = "run.completed"
    RUN_FAILED = "run.failed"
    RUN_CANCELED = "run.canceled"
    STEP_STARTED = "step.started"
    STEP_COMPLETED = "step.completed"
    STEP_FAILED = "step.failed"
    STEP_WAITING_HUMAN = "step.waiting_human"
    AGENT_REQUEST = "agent.request"
    AGENT_THINKING = "agent.thinking"
    AGENT_DELTA = "agent.delta"
    AGENT_MESSAGE = "agent.message"
    AGENT_RESPONSE = "agent.response"
    TOOL_REQUEST = "tool.request"
    TOOL_OUTPUT = "tool.output"
    TOOL_RESPONSE = "tool.response"
    LOG = "log"


class WaitKind(StrEnum):
    """Whose answer an open step waits for."""

    EVENT = "event"
    TIMER = "timer"
    CHILD = "child"
    HUMAN = "human"
    """An approval."""
    OUTCOME = "outcome"
    """Somebody who finds out whether an effect took place."""


TERMINAL_EVENTS = frozenset({EventType.RUN_COMPLETED, EventType.RUN_FAILED, EventType.RUN_CANCELED})
BUILT_IN_EVENTS = frozenset(EventType)
