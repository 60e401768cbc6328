"""A run's log: what of its events tells somebody who reads along what happens, as lines."""

from typing import Annotated

from fastapi import APIRouter, Header
from starlette.responses import Response

from gateway.deps import StreamCaller, WithServices
from gateway.openapi import EVENT_STREAM, TAKES_TICKET, errors
from gateway.routes.answers import Page
from gateway.routes.paging import EventCursor, Limit
from gateway.routes.runs import LastEventId, LastId
from gateway.stream import projections
from gateway.stream.log_lines import LogLine, lines_of
from gateway.stream.open import resume_after

router = APIRouter(prefix="/runs", tags=["runs"])


@router.get(
    "/{run_id}/logs",
    operation_id="listLogs",
    summary="Its log: a stream, or JSON",
    response_model=Page[LogLine],
    responses={**EVENT_STREAM, **errors(400, 404)},
    openapi_extra=TAKES_TICKET,
)
async def logs(
    run_id: str,
    *,
    services: WithServices,
    caller: StreamCaller,
    accept: Annotated[str, Header()] = "",
    last_id: LastId = None,
    limit: Limit = 50,
    cursor: EventCursor = None,
    last_event_id: LastEventId = None,
) -> Response | Page[LogLine]:
    """With `Accept: text/event-stream` a stream that ends with the run, else a page of what there is."""
    after = resume_after(last_event_id, last_id)
    if "text/event-stream" in accept:
        return await services.streams.of_run(caller, run_id, after, projections.log_sse)
    since = resume_after(cursor, after)
    run = await services.run_of(caller, run_id)
    found = await lines_of(services.history, run, since=since, count=limit + 1)
    return Page(items=found[:limit], next_cursor=found[limit - 1].id if len(found) > limit else None)
