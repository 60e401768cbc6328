"""Runs: one by one, their steps and events, and their end."""

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Header, Query
from starlette.responses import Response

from gateway.auth import Principal
from gateway.catalogue.runs import began, canceled, check_limits, input_of_fork, submit_run, submit_task
from gateway.catalogue.tools import with_tools
from gateway.deps import BEGINS_WORK, Caller, IdempotencyKey, Runner, Services, StreamCaller, WithServices, Writer
from gateway.errors import invalid
from gateway.openapi import EVENTS, TAKES_TICKET, errors
from gateway.patterns import EVENT_ID, looks_like
from gateway.routes.answers import Page, RunAnswer, StepAnswer, locate
from gateway.routes.bodies import ForkBody, NoBody, RetryBody, RunBody, RunPatch
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import EventCursor, Limit, NumberCursor, offset_of, page_of, place_of
from gateway.routes.queries import RunQuery
from gateway.routes.versions import IfMatch, expected_version, tag
from gateway.routes.whole import whole_run
from gateway.stream.entries import Projection
from gateway.stream.open import resume_after
from gateway.stream.projections import run_sse
from shared.errors import AppError, ErrorCode, FieldError
from shared.history.lists import place_of_run
from shared.ids import new_run_id, new_thread_id, thread_of
from shared.threads import again
from shared.threads.types import NewThread, Run, StreamEntry, Submitted
from shared.types import JSON, Runnable

_EventId = Annotated[str, looks_like(EVENT_ID)]
LastEventId = Annotated[
    _EventId | None, Header(alias="Last-Event-ID", description="What an EventSource sends; counts before `last_id`.")
]
LastId = Annotated[_EventId | None, Query(description="Resume exactly after this event.", examples=["1732150000000-0"])]
LAST_STEP = 1_000_000_000
STEP_NUMBER = re.compile(r"[1-9][0-9]{0,8}")

STREAM = "text/event-stream"
PLAIN_EXAMPLE = """id: 1732150000000-0
data: {"type":"run.queued","thread_id":"...","run_id":"...","step_id":null,"attempt":0,"time":"...","data":{}}

data: {"event":"end"}
"""
PLAIN_STREAM: dict[int | str, JSON] = {
    200: {
        "description": 'With `Accept: text/event-stream`: the run\'s events, unnamed, and `{"event": "end"}`. A stream '
        "that ends without it was cut; the run goes on: GET /api/runs/{run_id}/events.",
        "content": {STREAM: {"schema": {"type": "string"}, "example": PLAIN_EXAMPLE}},
    }
}


async def streamed(
    services: WithServices, caller: Runner, accept: Annotated[str, Header()] = ""
) -> AsyncIterator[bool]:
    """Whether the client wants to follow what it begins."""
    if STREAM not in accept:
        yield False
        return
    async with services.counted_stream(caller):
        yield True


router = APIRouter(prefix="/runs", tags=["runs"], route_class=StrictJsonRoute)


@router.post(
    "",
    operation_id="createRun",
    dependencies=BEGINS_WORK,
    summary="Run something",
    status_code=201,
    response_model=RunAnswer,
    responses={**PLAIN_STREAM, **errors(400, 404, 409, 413, 501)},
)
async def create_run(
    body: RunBody,
    *,
    response: Response,
    services: WithServices,
    caller: Runner,
    follow: Annotated[bool, Depends(streamed)],
    idempotency_key: IdempotencyKey = None,
) -> Response | RunAnswer:
    """An agent or a durable function, in a thread of its own or in one that there is; or a task.

    A run of an agent carries what the agent is when it is accepted: later changes are for later runs.
    """
    if body.task_id is not None:
        run = await submit_task(services, caller, body.task_id, body, idempotency_key)
    else:
        run = await submit_run(services, caller, body, idempotency_key)
    if follow:
        return await services.streams.of_new_run(caller, run.id)
    return accepted(response, run)


@router.get("", operation_id="listRuns", summary="List runs, newest first", responses=errors(400))
async def list_runs(
    services: WithServices,
    caller: Caller,
    wanted: Annotated[RunQuery, Query()],
) -> Page[RunAnswer]:
    found = await services.lists.runs(
        caller.tenant, wanted.filter(), after=place_of(wanted.cursor), limit=wanted.limit + 1
    )
    return page_of_runs(found, wanted.limit)


def page_of_runs(found: Sequence[Run], limit: int) -> Page[RunAnswer]:
    """Of one more than `limit`, where there are more."""
    return page_of(found, limit, RunAnswer.of, place_of_run)


@router.patch(
    "/{run_id}", operation_id="updateRun", summary="Name or label a run", responses=errors(400, 404, 409, 413)
)
async def update_run(
    run_id: str,
    body: RunPatch,
    *,
    response: Response,
    services: WithServices,
    caller: Writer,
    if_match: IfMatch = None,
) -> RunAnswer:
    """What is not given stays as it is."""
    expected = expected_version(if_match, body.expected_version)
    run = await services.run_of(caller, run_id)
    given = body.model_dump(exclude_none=True, exclude={"expected_version"})
    await services.changes.patch_run(run, given, expected=expected)
    run = await services.run_of(caller, run_id)
    tag(response, run.revision)
    return RunAnswer.of(run)


@router.delete(
    "/{run_id}", operation_id="deleteRun", summary="Delete a run", status_code=204, responses=errors(400, 404, 409)
)
async def delete_run(run_id: str, services: WithServices, caller: Writer, if_match: IfMatch = None) -> None:
    """With its steps and events, once it has ended. What it added to the conversation stays."""
    expected = expected_version(if_match)
    await services.changes.delete_run(await services.run_of(caller, run_id), expected=expected)


@router.get("/{run_id}", operation_id="getRun", summary="A run", responses=errors(404))
async def get_run(run_id: str, response: Response, services: WithServices, caller: Caller) -> RunAnswer:
    """With its input and output, however large."""
    run = await services.run_of(caller, run_id)
    tag(response, run.revision)
    return await whole_run(services.store.payloads, run)


@router.get(
    "/{run_id}/steps",
    operation_id="listSteps",
    summary="Its steps, in order of their start",
    responses=errors(400, 404),
)
async def list_steps(
    run_id: str, services: WithServices, caller: Caller, limit: Limit = 50, cursor: NumberCursor = None
) -> Page[StepAnswer]:
    """One that is at work is there once something is recorded of it: for effects that must not be repeated its start,
    else its end. Events tell of each.
    """
    run = await services.run_of(caller, run_id)
    start = offset_of(cursor)
    steps = await services.history.steps(run.id, start, limit + 1)
    return Page(
        items=[StepAnswer.of(seen) for seen in await services.history.seen(run, steps[:limit])],
        next_cursor=str(start + limit) if len(steps) > limit else None,
    )


@router.post("/{run_id}/cancel", operation_id="cancelRun", summary="Cancel a run", responses=errors(400, 404, 409))
async def cancel_run(
    run_id: str, services: WithServices, caller: Runner, idempotency_key: IdempotencyKey = None, _: NoBody | None = None
) -> RunAnswer:
    """The answer shows the run as it now is: `canceled` only once it is, until then with `cancel_requested`.

    A run that has ended stays as it is.
    """
    run = await services.run_of(caller, run_id)
    await services.idempotency.reserve(caller.tenant, idempotency_key, ["cancel", run.id], run.id)
    return RunAnswer.of(await canceled(services, run))


@router.post(
    "/{run_id}/retry",
    operation_id="retryRun",
    dependencies=BEGINS_WORK,
    summary="Retry from the failed step",
    status_code=201,
    responses=errors(400, 404, 409, 413),
)
async def retry_run(
    run_id: str,
    *,
    response: Response,
    services: WithServices,
    caller: Runner,
    idempotency_key: IdempotencyKey = None,
    body: RetryBody | None = None,
) -> RunAnswer:
    """A new run in the same thread (`retried_from`), which keeps the steps that this one has finished."""
    changes = (body or RetryBody()).parameters
    parameters = changes.model_dump(exclude_none=True)
    run = await services.run_of(caller, run_id)
    if run.runnable_type is Runnable.FUNCTION and (unheeded := changes.unheeded_by_functions):
        raise invalid([FieldError(place="body.parameters", detail=unheeded)])
    check_limits(services.settings, changes, {})
    request = ["retry", run.id, parameters]
    new_id = await services.idempotency.reserve(caller.tenant, idempotency_key, request, new_run_id(run.thread_id))
    await services.store.bring_back(run.thread_id, run.id)
    definition = run.definition
    if "tools" in parameters:
        definition, parameters = await with_tools(services, caller, definition, parameters)
    submitted = await again.retry(
        services.store, run, new_id, key_id=caller.key_id, parameters=parameters, definition=definition
    )
    return accepted(response, await _submitted(services, caller, new_id, submitted))


@router.post(
    "/{run_id}/fork",
    operation_id="forkRun",
    dependencies=BEGINS_WORK,
    summary="Fork from a step",
    status_code=201,
    responses=errors(400, 404, 409, 413),
)
async def fork_run(
    run_id: str,
    *,
    response: Response,
    services: WithServices,
    caller: Runner,
    idempotency_key: IdempotencyKey = None,
    body: ForkBody | None = None,
) -> RunAnswer:
    """A new run (`forked_from`) in a new thread, with the conversation and the finished steps before that step.

    Its sandbox begins with the files of the thread's last snapshot that is not later than the run: see
    docs/sandboxes.md.
    """
    body = body or ForkBody()
    run = await services.run_of(caller, run_id)
    step, other = step_number(run, body.step_id), input_of_fork(services.settings, run, body.input)
    request = ["fork", run.id, body.model_dump()]
    new_id = await services.idempotency.reserve(caller.tenant, idempotency_key, request, new_run_id(new_thread_id()))
    agent = run.runnable_id if run.runnable_type is Runnable.AGENT else None
    thread = NewThread(
        thread_of(new_id), run.workspace, {"forked_from": run.thread_id}, agent=agent, project=run.project
    )
    await services.store.bring_back(run.thread_id, run.id)
    await services.copy_files(run.thread_id, thread.id, up_to=run.id)
    submitted = await again.fork_run(services.store, run, thread, new_id, key_id=caller.key_id, step=step, input=other)
    return accepted(response, await _submitted(services, caller, new_id, submitted))


async def _submitted(services: Services, caller: Principal, run_id: str, submitted: Submitted) -> Run:
    services.in_background(services.queue.ring(submitted.ring))
    run = await services.run_of(caller, run_id)
    await began(services, run)
    return run


def accepted(response: Response, run: Run) -> RunAnswer:
    """The answer to whoever asked for it."""
    locate(response, "runs", run.id)
    return RunAnswer.accepted(run)


def step_number(run: Run, step_id: str | None) -> int:
    """The step's number; past the end where none is named. Raises AppError NOT_FOUND for another run's."""
    if step_id is None:
        return LAST_STEP
    run_id, _, number = step_id.rpartition(".")
    if run_id != run.id or not STEP_NUMBER.fullmatch(number):
        raise AppError(ErrorCode.NOT_FOUND, f"Run {run.id} has no step {step_id[:100]}.")
    return int(number)


@dataclass(frozen=True, slots=True)
class Followed:
    """What is asked of a run's events, or of what they tell."""

    run_id: str
    services: WithServices
    caller: StreamCaller
    accept: Annotated[str, Header()] = ""
    last_id: LastId = None
    limit: Limit = 50
    cursor: EventCursor = None
    last_event_id: LastEventId = None

    async def as_stream(self, show: Projection) -> Response | None:
        """None: a page is asked for, `since` a place. Raises AppError INVALID_REQUEST, NOT_FOUND."""
        if STREAM not in self.accept:
            return None
        return await self.services.streams.of_run(self.caller, self.run_id, self._after, show)

    @property
    def since(self) -> str | None:
        """Raises AppError INVALID_REQUEST."""
        return resume_after(self.cursor, self._after)

    @property
    def _after(self) -> str | None:
        return resume_after(self.last_event_id, self.last_id)


@router.get(
    "/{run_id}/events",
    operation_id="listEvents",
    summary="Its events: a stream, or JSON",
    response_class=Response,
    responses={**EVENTS, **errors(400, 404)},
    openapi_extra=TAKES_TICKET,
)
async def events(asked: Annotated[Followed, Depends()]) -> Response:
    """With `Accept: text/event-stream` a stream that ends with the run, else a page of what there is."""
    if stream := await asked.as_stream(run_sse):
        return stream
    since, limit = asked.since, asked.limit
    run = await asked.services.run_of(asked.caller, asked.run_id)
    found = await asked.services.history.events_of(run, since=since, count=limit + 1)
    return Response(_page_of_events(found[:limit], more=len(found) > limit), media_type="application/json")


def _page_of_events(entries: list[StreamEntry], *, more: bool) -> bytes:
    """Events are stored as they are sent: only their id is added."""
    items = b",".join(b'{"id":"%b",%b' % (entry.id.encode(), entry.event[1:]) for entry in entries)
    return b'{"items":[%b],"next_cursor":%b}' % (items, orjson.dumps(entries[-1].id if more else None))
