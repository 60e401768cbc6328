"""What the API answers with, as far as this package needs to understand it; the rest is in `raw`."""

from dataclasses import dataclass, field
from typing import Any, Self

JSON = dict[str, Any]

TERMINAL = {"run.completed": "succeeded", "run.failed": "failed", "run.canceled": "canceled"}
"""The events that end a run, and the status that they end it with."""


@dataclass(frozen=True)
class Thread:
    id: str
    status: str
    created_at: str
    raw: JSON = field(repr=False)

    @classmethod
    def parse(cls, body: JSON) -> Self:
        return cls(body["thread_id"], body["status"], body["created_at"], body)


@dataclass(frozen=True)
class Run:
    id: str
    thread_id: str
    status: str
    created_at: str
    raw: JSON = field(repr=False)

    @classmethod
    def parse(cls, body: JSON) -> Self:
        return cls(body["run_id"], body["thread_id"], body["status"], body["created_at"], body)


@dataclass(frozen=True)
class Event:
    """One entry of a thread's stream. `id` is what a stream resumes after."""

    id: str
    type: str
    run_id: str
    step_id: str | None
    attempt: int
    time: str
    data: JSON
    raw: JSON = field(repr=False)

    @classmethod
    def parse(cls, stream_id: str, body: JSON) -> Self:
        return cls(
            id=stream_id,
            type=body["type"],
            run_id=body.get("run_id") or "",
            step_id=body.get("step_id"),
            attempt=body.get("attempt") or 0,
            time=body.get("time") or "",
            data=body.get("data") or {},
            raw=body,
        )
