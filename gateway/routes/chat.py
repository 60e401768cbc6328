"""One question, one answer that streams: a thread, a run and its events behind a single request."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Depends
from starlette.responses import Response

from gateway.agents.known import catalogue_of
from gateway.agents.snapshots import project_for, snapshot_of
from gateway.auth import Principal
from gateway.catalogue.runs import check_limits
from gateway.catalogue.tools import with_tools
from gateway.deps import BEGINS_WORK, IdempotencyKey, Runner, Services, WithServices
from gateway.names import thread_named
from gateway.openapi import errors
from gateway.routes.agent_bodies import ChatBody
from gateway.routes.bodies import Parameters
from gateway.routes.json_route import StrictJsonRoute
from shared import keys
from shared.breaker import deployments, seconds_held
from shared.errors import AppError, ErrorCode
from shared.ids import new_run_id, new_thread_id, thread_of
from shared.threads.types import NewRun, NewThread
from shared.types import JSON

CHUNK: JSON = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
ANSWER: dict[int | str, JSON] = {
    200: {
        "description": "Chunks: first the ids, then `content` (text to append) or `replace` (all text so far: a part "
        "of what was sent is void), `waiting` (a person is asked), at the end `done` or `error`, and `[DONE]`. A "
        "stream that ends without it was cut; the run goes on: GET /api/runs/{run_id}/events.",
        "content": {"text/event-stream": {"schema": CHUNK, "example": {"data": '{"content":"Hello"}'}}},
    }
}


async def counted(services: WithServices, caller: Runner) -> AsyncIterator[None]:
    """Against the streams that a key may hold open."""
    async with services.counted_stream(caller):
        yield


router = APIRouter(prefix="/chat", tags=["agents"], route_class=StrictJsonRoute)


@router.post(
    "/stream",
    operation_id="chat",
    dependencies=[*BEGINS_WORK, Depends(counted)],
    summary="Ask an agent, and read its answer as it comes",
    response_class=Response,
    responses={**ANSWER, **errors(400, 409, 413, 501)},
)
async def chat(
    body: ChatBody, services: WithServices, caller: Runner, idempotency_key: IdempotencyKey = None
) -> Response:
    """A session's questions and answers are one conversation. Whoever stops reading stops nothing: the run goes on.

    501 where there is no such agent, 503 with `Retry-After` while its model's provider is left alone.
    """
    check_limits(services.settings, Parameters(), {"body.input": body.input})
    request = ["chat", body.model_dump()]
    before = await services.idempotency.reserved(caller.tenant, idempotency_key, request)
    known = before is not None and await services.history.is_there(before)
    definition = None if known else await _definition(services, caller, body.agent)
    thread_id = await _thread(services, caller, body.session_id)
    project = await project_for(services, caller, None, definition)
    run_id = await services.idempotency.reserve(caller.tenant, idempotency_key, request, new_run_id(thread_id))
    metadata = {"session_id": body.session_id} if body.session_id else {}
    thread = NewThread(thread_of(run_id), caller.workspace, metadata, agent=body.agent, project=project)
    await services.store.create_thread(thread)
    new = NewRun(
        run_id,
        caller.workspace,
        {"task": body.input},
        runnable_id=body.agent,
        definition=definition,
        user_uuid=caller.user,
        key_id=caller.key_id,
    )
    submitted = await services.store.submit(new, queued={"task": body.input})
    services.in_background(services.queue.ring(submitted.ring))
    hello = {"session_id": body.session_id, "thread_id": thread_of(run_id), "run_id": run_id}
    return await services.streams.of_chat(caller, run_id, hello)


async def _definition(services: Services, caller: Principal, name: str) -> JSON:
    """What the run carries of its agent. Raises AppError NOT_IMPLEMENTED, CONFLICT, UNAVAILABLE."""
    try:
        definition = await snapshot_of(services, caller, name)
    except AppError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise
        raise AppError(ErrorCode.NOT_IMPLEMENTED, error.detail) from error
    await _check_provider(services, definition["parameters"].get("model"))
    with_own, _ = await with_tools(services, caller, definition, {})
    return with_own or definition


async def _check_provider(services: Services, model: str | None) -> None:
    """Raises AppError UNAVAILABLE while no model that the run may use is asked."""
    chosen = (await catalogue_of(services)).deployment
    names = deployments(services.settings.llm, model) or ([chosen] if chosen else [])
    if names and (seconds := await seconds_held(services.redis, names)) is not None:
        raise AppError(
            ErrorCode.UNAVAILABLE,
            "The model's provider has failed several times in a row and is left alone for a while. Try again then.",
            retry_after=seconds,
        )


async def _thread(services: Services, caller: Principal, session_id: str | None) -> str:
    """The session's, the same each time."""
    mine = new_thread_id()
    if session_id is None:
        return mine
    return await thread_named(services, keys.session(str(caller.tenant), session_id), mine)
