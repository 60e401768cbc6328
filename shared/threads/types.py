"""What the thread store takes and gives: threads, runs, events. Steps: shared/threads/steps.py."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self

import orjson

from shared.correlation import Correlation
from shared.ids import thread_of
from shared.payloads.blobs import Ref
from shared.threads.brief import encode_brief
from shared.types import JSON, EventType, Runnable, RunStatus

DELETED = "deleted"
"""The mark, in `keys.dirty`, of a thread or run that is to go from SQL."""
CUSTOM_EVENT = re.compile(r"[a-z][a-z_]{0,39}")
BusyPolicy = Literal["enqueue", "reject", "interrupt", "rollback"]


@dataclass(frozen=True, slots=True)
class NewThread:
    id: str
    workspace: str
    metadata: JSON = field(default_factory=dict)
    context: JSON = field(default_factory=dict)
    sandbox_of: str | None = None
    """The thread whose sandbox it uses, where that is not its own."""
    agent: str | None = None
    """Who does what is executed in it, where that is not said: an agent's id, or a kind of agents."""
    project: str | None = None
    derived: bool = False
    """Its id says nothing of its age: it was made from another's."""

    def fields(self) -> list[str | bytes]:
        fields: list[str | bytes] = ["workspace", self.workspace, "metadata", orjson.dumps(self.metadata)]
        fields += ["context", orjson.dumps(self.context)]
        optional = {"sandbox_of": self.sandbox_of, "agent": self.agent, "project": self.project}
        for name, value in optional.items():
            fields += [name, value] if value else []
        return fields


PARENT_ENDED = "the run that called it ended"
"""Why a child is canceled with its parent."""


@dataclass(frozen=True, slots=True)
class Thread:
    id: str
    workspace: str
    status: str
    created_at: datetime
    metadata: JSON
    context: JSON
    sandbox: JSON | None
    sandbox_of: str
    agent: str | None
    project: str | None
    head: str | None
    last_id: str
    name: str | None
    revision: int
    """How often its owner has changed it, and one: what `If-Match` is compared with."""
    was_evicted: bool
    """Once or now: only SQL has some of its runs and events."""

    @classmethod
    def parse(cls, thread_id: str, record: Mapping[str, str]) -> Self:
        return cls(
            id=thread_id,
            workspace=record["workspace"],
            status=record["status"],
            created_at=time_of(record["created_at"]),
            metadata=orjson.loads(record["metadata"]),
            context=orjson.loads(record["context"]),
            sandbox=_json(record.get("sandbox")),
            sandbox_of=record.get("sandbox_of", thread_id),
            agent=record.get("agent"),
            project=record.get("project"),
            head=record.get("head"),
            last_id=record["last_id"],
            name=record.get("name") or None,
            revision=int(record.get("revision", 1)),
            was_evicted="evicted_at" in record,
        )


def input_of(kind: Runnable, given: Any) -> JSON:
    """A run's input: an agent's is its task, others' is anything."""
    if kind is not Runnable.AGENT:
        return {"input": given}
    return given if isinstance(given, dict) and "task" in given else {"task": str(given)}


@dataclass(frozen=True, slots=True)
class NewRun:
    id: str
    workspace: str
    input: JSON
    parameters: JSON = field(default_factory=dict)
    runnable_type: Runnable = Runnable.AGENT
    runnable_id: str | None = None
    user_uuid: str | None = None
    key_id: str | None = None
    """The API key that it was made with."""
    definition: JSON | None = None
    """The agent as it was then: agent_id, definition (its kind), version, prompt, sandbox, and its `parameters`.

    `tools`: what there was of the workspace's tools that it may use.
    """
    parent: str | None = None
    """`RUN STEP_KEY` of the step that waits for this run's end."""
    parent_step: int | None = None
    """That step's number."""
    depth: int = 0
    """How many runs stand above it, each of which called the next."""
    project: str | None = None
    task_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    origin: "Origin | None" = None
    steps: "CopiedSteps | None" = None
    correlation: Correlation = field(default_factory=Correlation.current)

    def fields(self, input_ref: Ref | None) -> list[str | bytes | int]:
        optional: dict[str, str | int | None] = {
            "runnable_id": self.runnable_id,
            "user_uuid": self.user_uuid,
            "key_id": self.key_id,
            "agent_id": (self.definition or {}).get("agent_id"),
            "parent": self.parent,
            "parent_step": self.parent_step,
            "depth": self.depth or None,
            "request_id": self.correlation.request_id,
            "traceparent": self.correlation.traceparent,
            "project": self.project,
            "task_id": self.task_id,
            **({"labels": orjson.dumps(dict(self.labels)).decode()} if self.labels else {}),
            **(self.origin.fields() if self.origin else {}),
        }
        given = {name: value for name, value in optional.items() if value is not None}
        always: dict[str, str | bytes] = {
            "workspace": self.workspace,
            "runnable_type": self.runnable_type,
            "input": orjson.dumps(None if input_ref else self.input),
            "parameters": orjson.dumps(self.parameters),
            **({"definition": orjson.dumps(self.definition)} if self.definition else {}),
            **({"input_ref": orjson.dumps(input_ref.as_json())} if input_ref else {}),
        }
        flat: list[str | bytes | int] = []
        for name, value in [*always.items(), *given.items()]:
            flat += [name, value]
        return flat


@dataclass(frozen=True, slots=True)
class CopiedSteps:
    """Steps of another run, kept for an hour under a name of their own for the run that is submitted with them."""

    journal: str
    index: str
    count: int
    blobs: Sequence[str]
    """Markers of the blobs that they name."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The run whose finished steps a new run begins with, and what else it takes over from it."""

    run_id: str
    how: Literal["retried_from", "forked_from"]
    step: int
    base: int | None
    model: str | None
    version: int | None
    effects_of: str | None
    """The run after which effects are named: a retry's are those of the run that it retries."""

    def fields(self) -> dict[str, str | int | None]:
        fields: dict[str, str | int | None] = {self.how: self.run_id, "step": self.step, "base": self.base}
        return fields | {"model": self.model, "version": self.version, "effects_of": self.effects_of}


@dataclass(frozen=True, slots=True)
class Run:
    id: str
    workspace: str
    project: str | None
    """Its thread's."""
    runnable_type: Runnable
    runnable_id: str | None
    version: int | None
    """Of the durable function that it began with."""
    status: RunStatus
    epoch: int
    worker: str | None
    input: JSON | None
    input_ref: Ref | None
    """Where the input is, if it is large; then `input` is None. The same goes for the output."""
    parameters: JSON
    """As the request gave them; `options` has the agent's too."""
    definition: JSON | None
    output: Any
    output_ref: Ref | None
    error: JSON | None
    usage: JSON
    user_uuid: str | None
    key_id: str | None
    parent: str | None
    parent_step: int | None
    """As of a new run."""
    depth: int
    retried_from: str | None
    forked_from: str | None
    effects_of: str
    """The first of the runs that retry one another, itself if it retries none."""
    cancel_reason: str | None
    """Why it is to be canceled, or was; None: nobody asked for it."""
    inbox: int
    """How many messages were put into it while it went on."""
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    ran_seconds: float
    """In the hands of workers up to its latest claim, by Redis' clock: without what it waited."""
    model: str | None
    """The model it runs on, once its first commit has settled that."""
    base: int | None
    """How many messages the conversation had before the run's task (a retry's: before its first run's). None: no task
    was added yet."""
    rolled_back: bool
    """What it added to the conversation is there no more, once it has ended."""
    culprits: Sequence[str]
    """The keys of the steps whose failure ended it, where it was that of steps."""
    name: str | None
    labels: Mapping[str, str]
    revision: int
    """As a thread's: what its attempts do does not count."""
    task_id: str | None
    first_event: str
    last_event: str | None
    """Stream ids of `run.queued` and of the terminal event."""
    correlation: Correlation
    """The request that asked for it, be it through a run that called it."""

    @property
    def thread_id(self) -> str:
        return thread_of(self.id)

    @property
    def options(self) -> JSON:
        """How it is to be done: what the request says, and what its agent says where that says nothing."""
        own: JSON = (self.definition or {}).get("parameters") or {}
        return own | self.parameters

    @property
    def cancel_requested(self) -> bool:
        return self.cancel_reason is not None

    @classmethod
    def parse(cls, run_id: str, record: Mapping[str, str]) -> Self:
        return cls(
            id=run_id,
            workspace=record["workspace"],
            project=record.get("project"),
            runnable_type=Runnable(record["runnable_type"]),
            runnable_id=record.get("runnable_id"),
            version=int(record["version"]) if "version" in record else None,
            status=RunStatus(record["status"]),
            epoch=int(record["epoch"]),
            worker=record.get("worker") or None,
            input=orjson.loads(record["input"]),
            input_ref=Ref.parse_known(_json(record.get("input_ref"))),
            parameters=orjson.loads(record["parameters"]),
            definition=_json(record.get("definition")),
            output=_json(record.get("output")),
            output_ref=Ref.parse_known(_json(record.get("output_ref"))),
            error=_json(record.get("error")),
            usage=_json(record.get("usage")) or {},
            user_uuid=record.get("user_uuid"),
            key_id=record.get("key_id"),
            parent=record.get("parent"),
            parent_step=int(record["parent_step"]) if "parent_step" in record else None,
            depth=int(record.get("depth", 0)),
            retried_from=record.get("retried_from"),
            forked_from=record.get("forked_from"),
            effects_of=record.get("effects_of", run_id),
            cancel_reason=orjson.loads(record["cancel"])["reason"] if "cancel" in record else None,
            inbox=int(record.get("inbox", 0)),
            created_at=time_of(record["created_at"]),
            started_at=time_of(record["started_at"]) if "started_at" in record else None,
            ended_at=time_of(record["ended_at"]) if "ended_at" in record else None,
            ran_seconds=int(record.get("ran_ms", 0)) / 1000,
            model=record.get("model"),
            base=int(record["base"]) if "base" in record else None,
            rolled_back="rollback" in record,
            culprits=_json(record.get("culprits")) or (),
            name=record.get("name") or None,
            labels=_json(record.get("labels")) or {},
            revision=int(record.get("revision", 1)),
            task_id=record.get("task_id"),
            first_event=record["first_event"],
            last_event=record.get("last_event"),
            correlation=Correlation(record.get("request_id"), record.get("traceparent")),
        )


@dataclass(frozen=True, slots=True)
class Holding:
    """What the end of a worker's hold on a run asks of its record: nothing that only a newer release can read."""

    id: str
    workspace: str
    key_id: str | None
    worker: str | None
    epoch: int

    @property
    def thread_id(self) -> str:
        return thread_of(self.id)


@dataclass(frozen=True, slots=True)
class Submitted:
    """`ring`: the run that the submitter tells the queue of: this one, or one that it interrupted."""

    status: RunStatus
    created_at: datetime
    ring: str | None


@dataclass(frozen=True, slots=True)
class Expired:
    """`ring`: the run to ring for. `failed`: it was the run's last attempt, and the run is over."""

    ring: str | None
    failed: bool


@dataclass(frozen=True, slots=True)
class Signaled:
    """`answered`: by this call; otherwise it did not wait any more. `ring`: the run to ring for."""

    answered: bool
    ring: str | None


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append. `step`: the step's number. Its id, time and attempt are the store's to give."""

    type: str
    data: JSON
    step: int | None = None

    def flat(self) -> tuple[str, str | int, bytes]:
        if self.type not in EventType.__members__.values() and not CUSTOM_EVENT.fullmatch(self.type):
            raise ValueError(f"not an event type: {self.type!r}")
        return self.type, "" if self.step is None else self.step, encode_brief(self.data)


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One entry of a thread's stream: `event` is its JSON, ready to be sent."""

    id: str
    type: str
    run_id: str
    event: bytes


def time_of(milliseconds: str) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def _json(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)
