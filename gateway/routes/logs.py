"""A run's log: what of its events tells somebody who reads along what happens, as lines."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from gateway.openapi import EVENT_STREAM, TAKES_TICKET, errors
from gateway.routes.answers import Page
from gateway.routes.runs import Followed
from gateway.stream.log_lines import LogLine, lines_of
from gateway.stream.projections import log_sse

router = APIRouter(prefix="/runs", tags=["runs"])


@router.get(
    "/{run_id}/logs",
    operation_id="listLogs",
    summary="Its log: a stream, or JSON",
    response_model=Page[LogLine],
    responses={**EVENT_STREAM, **errors(400, 404)},
    openapi_extra=TAKES_TICKET,
)
async def logs(asked: Annotated[Followed, Depends()]) -> Response | Page[LogLine]:
    """With `Accept: text/event-stream` a stream that ends with the run, else a page of what there is."""
    if stream := await asked.as_stream(log_sse):
        return stream
    since, limit = asked.since, asked.limit
    run = await asked.services.run_of(asked.caller, asked.run_id)
    found = await lines_of(asked.services.history, run, since=since, count=limit + 1)
    return Page(items=found[:limit], next_cursor=found[limit - 1].id if len(found) > limit else None)
