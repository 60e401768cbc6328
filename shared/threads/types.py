"""What the thread store takes and gives: threads, runs, steps, events."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self

import orjson

from shared.ids import thread_of
from shared.types import JSON, EventType, Runnable, RunStatus, StepStatus

CUSTOM_EVENT = re.compile(r"[a-z][a-z_]{0,39}")
BusyPolicy = Literal["enqueue", "reject"]


@dataclass(frozen=True, slots=True)
class NewThread:
    id: str
    workspace: str
    metadata: JSON = field(default_factory=dict)
    context: JSON = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Thread:
    id: str
    workspace: str
    status: str
    created_at: datetime
    metadata: JSON
    context: JSON
    sandbox: JSON | None
    head: str | None
    last_id: str

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
            head=record.get("head"),
            last_id=record["last_id"],
        )


@dataclass(frozen=True, slots=True)
class NewRun:
    id: str
    workspace: str
    input: JSON
    parameters: JSON = field(default_factory=dict)
    runnable_type: Runnable = Runnable.AGENT
    user_uuid: str | None = None

    def fields(self) -> list[str | bytes]:
        pairs: list[str | bytes] = ["workspace", self.workspace, "runnable_type", self.runnable_type]
        pairs += ["input", orjson.dumps(self.input), "parameters", orjson.dumps(self.parameters)]
        return [*pairs, "user_uuid", self.user_uuid] if self.user_uuid else pairs


@dataclass(frozen=True, slots=True)
class Run:
    id: str
    workspace: str
    runnable_type: Runnable
    status: RunStatus
    epoch: int
    worker: str | None
    input: JSON
    parameters: JSON
    output: Any
    error: JSON | None
    usage: JSON
    user_uuid: str | None
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    elapsed_seconds: float
    """From its start to its latest claim, by Redis' clock."""
    model: str | None
    """The model it runs on, once its first commit has settled that."""
    base: int | None
    """How many messages the conversation had before this run; None until its first commit."""
    first_event: str
    last_event: str | None
    """Stream ids of `run.queued` and of the terminal event."""

    @property
    def thread_id(self) -> str:
        return thread_of(self.id)

    @classmethod
    def parse(cls, run_id: str, record: Mapping[str, str]) -> Self:
        return cls(
            id=run_id,
            workspace=record["workspace"],
            runnable_type=Runnable(record["runnable_type"]),
            status=RunStatus(record["status"]),
            epoch=int(record["epoch"]),
            worker=record.get("worker") or None,
            input=orjson.loads(record["input"]),
            parameters=orjson.loads(record["parameters"]),
            output=_json(record.get("output")),
            error=_json(record.get("error")),
            usage=_json(record.get("usage")) or {},
            user_uuid=record.get("user_uuid"),
            cancel_requested="cancel" in record,
            created_at=time_of(record["created_at"]),
            started_at=time_of(record["started_at"]) if "started_at" in record else None,
            ended_at=time_of(record["ended_at"]) if "ended_at" in record else None,
            elapsed_seconds=(int(record.get("claimed_at", 0)) - int(record.get("started_at", 0))) / 1000,
            model=record.get("model"),
            base=int(record["base"]) if "base" in record else None,
            first_event=record["first_event"],
            last_event=record.get("last_event"),
        )


@dataclass(frozen=True, slots=True)
class Submitted:
    """`ring`: the run is its thread's head, so its submitter tells the queue."""

    status: RunStatus
    created_at: datetime
    ring: bool


@dataclass(frozen=True, slots=True)
class Expired:
    """`ring`: the run to ring for. `failed`: it was the run's last attempt, and the run is over."""

    ring: str | None
    failed: bool


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One journal entry. `number` makes the step's id; `key` says what it does, whatever the order."""

    key: str
    number: int
    name: str
    kind: str
    status: StepStatus
    input_hash: str
    tries: int = 1
    result: Any = None
    error: JSON | None = None
    duration_ms: int | None = None

    @classmethod
    def parse(cls, key: str, entry: str) -> Self:
        status, _, text = entry.partition(" ")
        # A newer release may have written fields that this one does not know.
        known = {name: value for name, value in orjson.loads(text).items() if name in cls.__dataclass_fields__}
        return cls(key=key, status=StepStatus(status), **known)

    def encode(self) -> bytes:
        return orjson.dumps(
            {
                "number": self.number,
                "name": self.name,
                "kind": self.kind,
                "input_hash": self.input_hash,
                "tries": self.tries,
                "result": self.result,
                "error": self.error,
                "duration_ms": self.duration_ms,
            }
        )


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append. `step`: the step's number. Its id, time and attempt are the store's to give."""

    type: str
    data: JSON
    step: int | None = None

    def flat(self) -> tuple[str, str | int, bytes]:
        if self.type not in EventType.__members__.values() and not CUSTOM_EVENT.fullmatch(self.type):
            raise ValueError(f"not an event type: {self.type!r}")
        return self.type, "" if self.step is None else self.step, orjson.dumps(self.data)


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
