"""What answers say."""

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import BaseModel, Field, PlainSerializer, WithJsonSchema
from starlette.responses import Response

from shared.history.steps import SeenStep
from shared.payloads.blobs import Ref
from shared.threads.steps import Wait
from shared.threads.types import Run, Thread, time_of
from shared.types import JSON, Runnable, RunStatus, StepStatus, WaitKind

Item = TypeVar("Item")


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else time_of(str(milliseconds))


Timestamp = Annotated[
    datetime,
    PlainSerializer(_rfc3339, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""RFC 3339 in UTC, always with milliseconds: such texts sort as the times do."""


VERSION = "Rises with every change by PATCH, and stands in the `ETag`."


def locate(response: Response, collection: str, made: str) -> None:
    """Says where it is. The audit log reads there what was made."""
    response.headers["Location"] = f"/api/{collection}/{made}"


class Page(BaseModel, Generic[Item]):
    items: list[Item]
    next_cursor: str | None = Field(description="Give it as `cursor` to get the next page; null on the last one.")


class ThreadOpened(BaseModel):
    thread_id: str
    created_at: Timestamp
    status: str


class ThreadAnswer(ThreadOpened):
    name: str | None
    version: int = Field(description=VERSION)
    project_id: str | None
    metadata: JSON
    context: JSON
    agent_id: str | None = Field(description="Who does what is executed in it.")
    current_run_id: str | None = Field(description="The run whose turn it is.")
    last_event_id: str

    @classmethod
    def of(cls, thread: Thread) -> Self:
        return cls(
            thread_id=thread.id,
            created_at=thread.created_at,
            status=thread.status,
            name=thread.name,
            version=thread.revision,
            project_id=thread.project,
            metadata=thread.metadata,
            context=thread.context,
            agent_id=thread.agent,
            current_run_id=thread.head,
            last_event_id=thread.last_id,
        )


class RunAccepted(BaseModel):
    thread_id: str
    run_id: str
    status: RunStatus
    created_at: Timestamp


class Reference(BaseModel):
    """Stands for a large value, in lists (above `payloads.inline_bytes`) and in events."""

    sha256: str = Field(description="Of the value as JSON.")
    bytes: int = Field(description="Its length.")
    error: str | None = Field(default=None, description="Why the value cannot be shown: `result_lost`, `unavailable`.")

    @classmethod
    def of(cls, ref: Ref | None, error: str | None = None) -> Self | None:
        return None if ref is None else cls(**ref.shown(), error=error)


class RunAnswer(BaseModel):
    run_id: str
    thread_id: str
    project_id: str | None = Field(description="Its thread's.")
    runnable_type: Runnable
    runnable_id: str | None
    status: RunStatus
    cancel_requested: bool
    input: JSON | None = Field(description="Null in lists where it is large, as `output`.")
    input_ref: Reference | None
    parameters: JSON
    output: Any = Field(description="Null in lists where it is large (`output_ref`): GET /api/runs/{run_id} has it.")
    output_ref: Reference | None
    error: JSON | None
    usage: JSON
    name: str | None
    version: int = Field(description=VERSION)
    labels: dict[str, str]
    task_id: str | None
    user_uuid: str | None
    request_id: str | None = Field(description="The `X-Request-Id` of the request that asked for it.")
    parent_run_id: str | None = Field(description="The run that called it.")
    retried_from: str | None
    forked_from: str | None
    model: str | None = Field(description="What it runs on, once that is settled.")
    attempt: int = Field(description="How often a worker has taken it up.")
    worker: str | None
    created_at: Timestamp
    started_at: Timestamp | None
    ended_at: Timestamp | None
    first_event_id: str
    last_event_id: str | None = Field(description="Its terminal event, once it has ended.")

    @classmethod
    def of(cls, run: Run) -> Self:
        return cls(
            run_id=run.id,
            thread_id=run.thread_id,
            project_id=run.project,
            runnable_type=run.runnable_type,
            runnable_id=run.runnable_id,
            status=run.status,
            cancel_requested=run.cancel_requested,
            input=run.input,
            input_ref=Reference.of(run.input_ref),
            parameters=run.parameters,
            output=run.output,
            output_ref=Reference.of(run.output_ref),
            error=run.error,
            usage=run.usage,
            name=run.name,
            version=run.revision,
            labels=dict(run.labels),
            task_id=run.task_id,
            user_uuid=run.user_uuid,
            request_id=run.correlation.request_id,
            parent_run_id=run.parent.partition(" ")[0] if run.parent else None,
            retried_from=run.retried_from,
            forked_from=run.forked_from,
            model=run.model,
            attempt=run.epoch,
            worker=run.worker,
            created_at=run.created_at,
            started_at=run.started_at,
            ended_at=run.ended_at,
            first_event_id=run.first_event,
            last_event_id=run.last_event,
        )

    @classmethod
    def accepted(cls, run: Run) -> Self:
        """As it was when it was accepted, whatever it has done since: the same to whoever sends the request again."""
        answer = cls.of(run)
        undone = dict.fromkeys(("model", "output", "output_ref", "error", "worker", "started_at", "ended_at"))
        pending = {"status": RunStatus.PENDING, "cancel_requested": False, "attempt": 0, "usage": {}}
        return answer.model_copy(update={**undone, **pending, "last_event_id": None})


class UsageAnswer(BaseModel):
    """What runs have cost; of the first five fields, those that were asked for."""

    day: str | None = None
    runnable_type: str | None = None
    runnable_id: str | None = None
    model: str | None = None
    project_id: str | None = None
    runs: int
    input_tokens: int
    output_tokens: int
    cost: float = Field(description="US dollars, of the calls whose price is known.")


class WaitAnswer(BaseModel):
    kind: WaitKind
    name: str | None = Field(description="An event's name; or the child run's id.")
    until: Timestamp | None = Field(description="When its time is up.")
    request: Any = Field(description="What a human is asked. Null in lists where it is large, as `output`.")
    request_ref: Reference | None

    @classmethod
    def of(cls, wait: Wait) -> Self:
        ref = Reference.of(wait.request_ref)
        return cls(kind=wait.kind, name=wait.name, until=_time(wait.until), request=wait.request, request_ref=ref)


class Published(BaseModel):
    event_id: str
    name: str
    key: str | None
    run_id: str | None


class MessageAccepted(BaseModel):
    run_id: str
    message_id: str


class ThreadCanceled(BaseModel):
    runs: list[RunAnswer] = Field(description="Those that were under way, as they now are.")


class StepAnswer(BaseModel):
    step_id: str
    run_id: str
    key: str
    name: str
    kind: str
    status: StepStatus
    tries: int
    parents: list[str] = Field(
        description="The steps that it follows, as far as that is known: of a tool's call the model's turn that asked "
        "for it, of a turn the calls whose results it reads, in a run that another one called the step that called it."
    )
    started_at: Timestamp | None = Field(description="Null where nothing was recorded of it before its end yet.")
    ended_at: Timestamp | None
    input: Any = Field(
        description="What it was given. Null in lists where it is large, as `output`; of a model's turn the number of "
        "the thread's `messages` that went before it."
    )
    input_ref: Reference | None = Field(description="Of a tool's call: of the model's answer that has it.")
    output: Any = Field(description="Null in lists where it is large (`output_ref`): GET /api/steps/{step_id} has it.")
    output_ref: Reference | None
    error: JSON | None
    duration_ms: int | None = Field(description="Of its last try.")
    wait: WaitAnswer | None = Field(description="What it waits for, or waited for.")

    @classmethod
    def of(cls, seen: SeenStep) -> Self:
        step = seen.record
        return cls(
            step_id=f"{seen.run.id}.{step.number}",
            run_id=seen.run.id,
            key=step.key,
            name=step.name,
            kind=step.kind,
            status=step.status,
            tries=step.tries,
            parents=seen.parents,
            started_at=_time(step.began_at),
            ended_at=_time(step.ended_at),
            input=seen.input,
            input_ref=Reference.of(seen.input_ref),
            output=step.result,
            output_ref=Reference.of(step.payload),
            error=step.error,
            duration_ms=step.duration_ms,
            wait=WaitAnswer.of(step.wait) if step.wait else None,
        )


class StreamTicket(BaseModel):
    ticket: str
    expires_in: int = Field(description="Seconds.")
