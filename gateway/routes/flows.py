"""The legacy stream (source 001): named by a flow and its input, whichever thread it stands for."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from gateway.auth import Principal
from gateway.deps import Services, StreamCaller, WithServices
from gateway.errors import invalid
from gateway.names import thread_named
from gateway.openapi import FLOW_STREAM, TAKES_TICKET, errors
from gateway.patterns import NOT_BLANK, is_blank, looks_like
from gateway.routes.runs import LastEventId, LastId
from gateway.stream.open import resume_after
from shared import keys
from shared.errors import AppError, ErrorCode, FieldError

router = APIRouter(tags=["threads"])
root = APIRouter(tags=["threads"])

_Name = Annotated[str, Field(max_length=200), looks_like(NOT_BLANK)]
FlowUuid = Annotated[_Name, Query(alias="flowUuid", examples=["order-flow"])]
FlowInputUuid = Annotated[_Name, Query(alias="flowInputUuid", examples=["order-7"])]


@router.get(
    "/agent/event-stream",
    operation_id="streamFlow",
    summary="Follow the thread of a flow (legacy)",
    response_class=Response,
    responses={**FLOW_STREAM, **errors(400)},
    openapi_extra=TAKES_TICKET,
)
@root.get("/agent/event-stream", operation_id="streamFlowAtRoot", include_in_schema=False)
async def stream_flow(
    flow_uuid: FlowUuid,
    flow_input_uuid: FlowInputUuid,
    *,
    services: WithServices,
    caller: StreamCaller,
    last_id: LastId = None,
    last_event_id: LastEventId = None,
) -> Response:
    """For as long as no thread was opened with the pair, it waits."""
    blank = [name for name, given in (("flowUuid", flow_uuid), ("flowInputUuid", flow_input_uuid)) if is_blank(given)]
    if blank:
        raise invalid([FieldError(place=f"query.{name}", detail="should not be blank") for name in blank])
    return await services.streams.of_flow(caller, flow_uuid, flow_input_uuid, resume_after(last_event_id, last_id))


async def name_stream(
    services: Services, caller: Principal, flow_uuid: str, flow_input_uuid: str, thread_id: str
) -> str:
    """The thread that the name stands for from now on: the given one, or the one that it was given before and that was
    never made. Raises AppError CONFLICT where it stands for another one.
    """
    alias = keys.flow(str(caller.tenant), flow_uuid, flow_input_uuid)
    before = await thread_named(services, alias, thread_id)
    if before == thread_id:
        return thread_id
    if await services.history.thread(before):
        raise AppError(
            ErrorCode.CONFLICT,
            f"This flow and input have thread {before} already. Execute in it, or give another flowInputUuid.",
        )
    return before
