"""What the API answers with. Fields that a newer server adds are kept; times are aware datetimes."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from trunkline.errors import RunFailed, UnexpectedAnswer

JSON = dict[str, Any]

TERMINAL = {"run.completed": "succeeded", "run.failed": "failed", "run.canceled": "canceled"}
"""The events that end a run, and the status that they end it with."""
ENDED = frozenset(TERMINAL.values())


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Time = Annotated[datetime, PlainSerializer(_rfc3339, when_used="json-unless-none")]


class Model(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    @classmethod
    def parse(cls, body: Any) -> Self:
        """Raises UnexpectedAnswer."""
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            detail = f"The server's answer is no {cls.__name__} as this release of the client knows it: {error}"
            raise UnexpectedAnswer({"code": "unexpected_answer", "detail": detail}) from error

    def to_json(self) -> JSON:
        """As the server gave it, with its names."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _id(name: str) -> Any:
    """A resource's own id: `id` here; the API calls some of them after the resource."""
    return Field(validation_alias=AliasChoices(name, "id"), serialization_alias=name)


class Thread(Model):
    """`status`: active or archived. `current_run_id`: the run whose turn it is."""

    id: str = _id("thread_id")
    status: str
    created_at: Time
    name: str | None = None
    version: int = 1
    metadata: JSON = {}
    context: JSON = {}
    current_run_id: str | None = None
    last_event_id: str | None = None


class Reference(Model):
    """Stands for a value that is too large for a list or an event; `error` says why it cannot be had."""

    sha256: str
    bytes: int
    error: str | None = None


class Run(Model):
    """`status`: pending, running, waiting, succeeded, failed or canceled."""

    id: str = _id("run_id")
    thread_id: str
    status: str
    created_at: Time
    runnable_type: str = "agent"
    runnable_id: str | None = None
    cancel_requested: bool = False
    input: Any = None
    input_ref: Reference | None = None
    parameters: JSON = {}
    output: Any = None
    output_ref: Reference | None = None
    error: JSON | None = None
    usage: JSON = {}
    name: str | None = None
    version: int = 1
    labels: JSON = {}
    user_uuid: str | None = None
    parent_run_id: str | None = None
    retried_from: str | None = None
    forked_from: str | None = None
    model: str | None = None
    attempt: int = 0
    worker: str | None = None
    started_at: Time | None = None
    ended_at: Time | None = None
    first_event_id: str | None = None
    last_event_id: str | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def raise_for_status(self) -> Self:
        """Raises RunFailed where the run failed or was canceled."""
        if self.status in ENDED - {"succeeded"}:
            raise RunFailed(self.id, self.status, self.error)
        return self


class RunList(Model):
    runs: list[Run]


class Wait(Model):
    """`kind`: human, outcome, event, child or timer. `request`: what a human is asked."""

    kind: str
    name: str | None = None
    until: Time | None = None
    request: Any = None
    request_ref: Reference | None = None


class Step(Model):
    id: str = _id("step_id")
    run_id: str
    key: str
    name: str
    kind: str
    status: str
    tries: int = 0
    parents: list[str] = []
    started_at: Time | None = None
    ended_at: Time | None = None
    input: Any = None
    input_ref: Reference | None = None
    output: Any = None
    output_ref: Reference | None = None
    error: JSON | None = None
    duration_ms: int | None = None
    wait: Wait | None = None


class Event(Model):
    """One entry of a thread's stream. `id` is what a stream resumes after.

    The type `gap` is not in the stream: the entries between `data["after"]` and `data["until"]` are nowhere any more.
    Its id is that of the last event before it.
    """

    id: str
    type: str
    thread_id: str = ""
    run_id: str | None = None
    step_id: str | None = None
    attempt: int = 0
    time: Time | None = None
    data: JSON = {}


class Message(Model):
    """One of a conversation, as the model sees it."""

    role: str
    content: Any = None


class MessageAccepted(Model):
    run_id: str
    message_id: str


class FileEntry(Model):
    """`path` is relative to the listed folder; `kind`: file, directory, symlink or other."""

    path: str
    kind: str
    size: int
    modified_at: Time
    children: int | None = None


class FileListing(Model):
    path: str
    entries: list[FileEntry]
    truncated: bool


class FileWritten(Model):
    """`sha256` is what `expect` takes; `count`: the entries of an archive."""

    path: str
    size: int | None = None
    sha256: str | None = None
    count: int | None = None


class PortLink(Model):
    url: str
    expires_at: Time


class Published(Model):
    event_id: str
    name: str
    key: str | None = None
    run_id: str | None = None


class Health(Model):
    """`status`: ok, degraded (nothing executes runs now) or unavailable."""

    status: str
    version: str = ""
    workers: JSON = {}
    queue: JSON = {}


class LogLine(Model):
    """Of a run's log."""

    level: str = "info"
    message: str = ""
    time: Time | None = None


class Row(Model):
    """What all rows of the catalogue have. `version` rises with each change and guards against lost updates."""

    id: str
    name: str = ""
    description: str = ""
    metadata: JSON = {}
    version: int | None = None
    created_at: Time | None = None
    updated_at: Time | None = None


class AgentDefinition(Model):
    """A kind of agent that the workers know."""

    id: str
    description: str = ""
    source: str = ""
    prompt: str | None = None
    model: str | None = None
    temperature: float | None = None
    tools: list[str] | None = None
    limits: JSON = {}
    hooks: bool = False


class Agent(Row):
    """`status`: inactive, active or shutdown. What is None is as its definition says."""

    definition_id: str = ""
    project_id: str | None = None
    status: str = ""
    model: str | None = None
    prompt: str | None = None
    temperature: float | None = None
    tools: list[str] | None = None
    limits: JSON = {}
    permissions: list[str] | None = None
    mcp_servers: JSON = {}
    sandbox: JSON = {}
    hooks: JSON | None = None


class Context(Model):
    """A version of an agent's named document."""

    agent_id: str
    context_name: str
    version: int
    data: JSON
    note: str = ""
    restored_version: int | None = None
    created_by: str | None = None
    created_at: Time | None = None


class AgentMessage(Model):
    """`role`: user, agent or system. `ack_until`: when it is too late to acknowledge it."""

    id: str
    agent_id: str
    role: str
    content: str
    sender: str | None = None
    data: JSON = {}
    created_at: Time | None = None
    ack_until: Time | None = None
    acknowledged_at: Time | None = None


class Team(Row):
    """`mode`: coordinate, route or broadcast."""

    mode: str | None = None


class Tool(Row):
    """Built-in ones have no id but their name."""

    id: str = Field(validation_alias=AliasChoices("id", "name"))
    type: str = "builtin"
    effect: str | None = None
    enabled: bool = True
    input_schema: JSON = {}


class Workflow(Row):
    """A graph of nodes."""


class WorkflowVersion(Model):
    version: int
    created_at: Time | None = None


class Task(Row):
    status: str | None = None


class Project(Row):
    workspace_id: str | None = None


class Workspace(Row):
    slug: str | None = None


class Key(Model):
    """An API key. `key` itself stands only in the answer that made it, `prefix` is how it begins."""

    id: str
    name: str = ""
    prefix: str = ""
    scopes: list[str] = []
    project_id: str | None = None
    created_by: str | None = None
    created_at: Time | None = None
    expires_at: Time | None = None
    last_used_at: Time | None = None
    revoked_at: Time | None = None
    key: str | None = None
