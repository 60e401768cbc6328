"""Runs: one by one, their steps and events, and their end."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Header
from starlette.responses import Response

from gateway.deps import Caller, IdempotencyKey, StreamCaller, WithServices
from gateway.openapi import EVENTS, TAKES_TICKET, errors
from gateway.routes.answers import Page, RunAnswer, StepAnswer
from gateway.routes.bodies import NoBody
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import Cursor, Limit, offset_of
from gateway.routes.threads import LastEventId, LastId
from gateway.stream.open import parse_last_id
from shared.threads.types import StreamEntry

router = APIRouter(prefix="/runs", tags=["runs"], route_class=StrictJsonRoute)


@router.get("/{run_id}", operation_id="getRun", summary="A run", responses=errors(404))
async def get_run(run_id: str, services: WithServices, caller: Caller) -> RunAnswer:
    return RunAnswer.of(await services.run_of(caller, run_id))


@router.get(
    "/{run_id}/steps",
    operation_id="listSteps",
    summary="Its steps, in order of their start",
    responses=errors(400, 404),
)
async def list_steps(
    run_id: str, services: WithServices, caller: Caller, limit: Limit = 50, cursor: Cursor = None
) -> Page[StepAnswer]:
    run = await services.run_of(caller, run_id)
    start = offset_of(cursor)
    steps = await services.store.journal(run.id)
    return Page(
        items=[StepAnswer.of(run.id, step) for step in steps[start : start + limit]],
        next_cursor=str(start + limit) if len(steps) > start + limit else None,
    )


@router.post("/{run_id}/cancel", operation_id="cancelRun", summary="Cancel a run", responses=errors(400, 404, 409))
async def cancel_run(
    run_id: str, services: WithServices, caller: Caller, idempotency_key: IdempotencyKey = None, _: NoBody | None = None
) -> RunAnswer:
    """The answer shows the run as it now is: `canceled` only once it is, until then with `cancel_requested`.

    A run that has ended stays as it is.
    """
    run = await services.run_of(caller, run_id)
    await services.idempotency.reserve(caller.workspace, idempotency_key, ["cancel", run.id], run.id)
    run, next_run = await services.store.cancel(run.id, reason="canceled by request")
    if next_run:
        services.in_background(services.queue.ring(next_run))
    return RunAnswer.of(run)


@router.get(
    "/{run_id}/events",
    operation_id="listEvents",
    summary="Its events: a stream, or JSON",
    response_class=Response,
    responses={**EVENTS, **errors(400, 404)},
    openapi_extra=TAKES_TICKET,
)
async def events(
    run_id: str,
    *,
    services: WithServices,
    caller: StreamCaller,
    accept: Annotated[str, Header()] = "",
    last_id: LastId = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    last_event_id: LastEventId = None,
) -> Response:
    """With `Accept: text/event-stream` a stream that ends with the run, else a page of what there is."""
    after = last_event_id or last_id
    if "text/event-stream" in accept:
        return await services.streams.of_run(caller, run_id, after)
    parse_last_id(cursor or after)
    run = await services.run_of(caller, run_id)
    found = await services.store.events_of(run, since=cursor or after, count=limit + 1)
    return Response(_page_of_events(found[:limit], more=len(found) > limit), media_type="application/json")


def _page_of_events(entries: list[StreamEntry], *, more: bool) -> bytes:
    """Events are stored as they are sent: only their id is added."""
    items = b",".join(b'{"id":"%b",%b' % (entry.id.encode(), entry.event[1:]) for entry in entries)
    return b'{"items":[%b],"next_cursor":%b}' % (items, orjson.dumps(entries[-1].id if more else None))
