"""A run's steps as the thread store keeps them, what they wait for, and what answers that."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Self

import orjson

from shared.payloads.blobs import Ref
from shared.threads.types import time_of
from shared.types import JSON, StepStatus, WaitKind

LONGEST_ID = 64


def call_key(call_id: str) -> str:
    """Names a model's call within its run. Some providers' ids are kilobytes long (Gemini's carry a signature)."""
    return call_id if len(call_id) <= LONGEST_ID else sha256(call_id.encode()).hexdigest()[:32]


def tool_step(call_id: str) -> str:
    """The key of the step that makes the call."""
    return f"tool:{call_key(call_id)}"


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
    messages: int = 0
    """How many it added to the conversation."""
    place: int = 0
    """Where those begin in the thread's: the store knows, not the attempt that adds them."""
    wait: "Wait | None" = None
    """What it waits for, or waited for."""
    payload: Ref | None = None
    """Where the result is, if it is large; then `result` is None."""
    inherited: bool = False
    """Its effect was under way in the run that this one begins with: what became of it, nobody knows."""
    asks: bool = False
    """Where its outcome is not known, a human decides."""
    input: Any = None
    """For those who look: what nothing else of its run tells (shared/history/steps.py)."""
    input_ref: Ref | None = None
    """Where the input is, if it is large; then `input` is None."""
    parents: Sequence[int] = ()
    """The numbers of the steps that it follows, as far as that is known."""
    started_at: int | None = field(default=None, compare=False)
    """The store's to give, as `ended_at`, in Redis' milliseconds. None: nothing was recorded of it before its end."""
    ended_at: int | None = field(default=None, compare=False)

    @property
    def refs(self) -> list[Ref]:
        """The blobs that it names."""
        return [ref for ref in (self.payload, self.input_ref, self.wait and self.wait.request_ref) if ref]

    @property
    def began_at(self) -> int | None:
        if self.started_at is None and self.ended_at is not None and self.duration_ms is not None:
            return self.ended_at - self.duration_ms
        return self.started_at

    @property
    def open(self) -> bool:
        """Whether it waits for an answer."""
        unsettled = (StepStatus.WAITING, StepStatus.WAITING_HUMAN, StepStatus.UNKNOWN)
        return self.wait is not None and self.status in unsettled

    @property
    def finished(self) -> bool:
        return not self.open and self.status not in (StepStatus.PENDING, StepStatus.RUNNING)

    @classmethod
    def parse(cls, key: str, entry: str) -> Self:
        status, _, text = entry.partition(" ")
        record: JSON = {}
        for line in text.split("\n"):  # the step as its run wrote it; then its place, an outside answer, its times
            record |= orjson.loads(line)
        # A newer release may have written fields that this one does not know.
        known = {name: value for name, value in record.items() if name in cls.__dataclass_fields__}
        if known.get("wait"):
            known["wait"] = Wait.parse(known["wait"])
        known |= {name: Ref.parse_known(known.get(name)) for name in ("payload", "input_ref")}
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
                "messages": self.messages,
                "wait": self.wait and self.wait.as_json(),
                **({"payload": self.payload.as_json()} if self.payload else {}),
                **({"input": self.input} if self.input is not None else {}),
                **({"input_ref": self.input_ref.as_json()} if self.input_ref else {}),
                **({"parents": self.parents} if self.parents else {}),
                **({"inherited": True} if self.inherited else {}),
                **({"asks": True} if self.asks else {}),
                **({"place": self.place} if self.place else {}),
            }
        )

    def entry(self) -> bytes:
        """As the journal has it."""
        times = {"started_at": self.started_at, "ended_at": self.ended_at}
        known = orjson.dumps({name: at for name, at in times.items() if at is not None})
        return b"%s %s\n%s" % (self.status.encode(), self.encode(), known)

    def row(self) -> tuple[str, str, bytes, str, str | int]:
        """As `commit` takes it: key, status, JSON, and for an open wait its kind and when its time is up."""
        if self.wait is None or not self.open:
            return self.key, self.status, self.encode(), "", ""
        return self.key, self.status, self.encode(), self.wait.kind, "" if self.wait.until is None else self.wait.until


@dataclass(frozen=True, slots=True)
class Wait:
    """What a step waits for. `until`: when its time is up, in Redis' milliseconds."""

    kind: WaitKind
    until: int | None = None
    name: str | None = None
    """An event's; or the child run's id."""
    topics: Sequence[Sequence[str]] = ()
    """Of an event: (workspace, name, key, the last event that does not count) of each place where it may be."""
    request: Any = None
    """What a human is asked, or what a child is to do."""
    request_ref: Ref | None = None
    """Where the request is, if it is large; then `request` is None."""

    @classmethod
    def parse(cls, known: JSON) -> Self:
        fields = {name: value for name, value in known.items() if name in cls.__dataclass_fields__}
        return cls(
            **{**fields, "kind": WaitKind(known["kind"]), "request_ref": Ref.parse_known(known.get("request_ref"))}
        )

    def shown(self) -> JSON:
        """As clients see it."""
        until = None if self.until is None else time_of(str(self.until)).isoformat(timespec="milliseconds")
        return {"kind": self.kind, "name": self.name, "until": until and until.replace("+00:00", "Z")}

    def as_json(self) -> JSON:
        fields = {"until": self.until, "name": self.name, "topics": self.topics, "request": self.request}
        fields |= {"request_ref": self.request_ref and self.request_ref.as_json()}
        return {"kind": self.kind, **{name: value for name, value in fields.items() if value not in (None, ())}}


@dataclass(frozen=True, slots=True)
class Answer:
    """What an open wait is answered with: it succeeded with a result, failed, or (`pending`) is to be done again."""

    status: StepStatus
    result: Any = None
    error: JSON | None = None
    payload: Ref | None = None
    """As of a step."""

    def encode(self) -> bytes:
        return orjson.dumps(
            {"result": self.result, "error": self.error, "payload": self.payload and self.payload.as_json()}
        )

    def shown(self) -> JSON:
        if self.status is StepStatus.PENDING:
            return {"repeat": True}
        return {"error": self.error} if self.error else {}
