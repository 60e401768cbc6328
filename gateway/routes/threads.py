"""Threads: open one, execute tasks in it, follow it."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from gateway.agents.snapshots import agent_named, snapshot
from gateway.auth import Principal
from gateway.catalogue.runs import canceled, check_limits
from gateway.deps import BEGINS_WORK, Caller, IdempotencyKey, Runner, Services, StreamCaller, WithServices, Writer
from gateway.openapi import EVENT_STREAM, TAKES_TICKET, errors
from gateway.routes.answers import (
    MessageAccepted,
    Page,
    RunAccepted,
    RunAnswer,
    ThreadAnswer,
    ThreadCanceled,
    ThreadOpened,
    locate,
)
from gateway.routes.bodies import ExecuteBody, ForkThreadBody, InitiateBody, MessageBody, NoBody, ThreadPatch
from gateway.routes.flows import name_stream
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import Cursor, InProject, Limit, NumberCursor, ThreadCursor, bad_cursor, offset_of, place_of
from gateway.routes.runs import LastEventId, LastId, page_of_runs, step_number
from gateway.routes.versions import IfMatch, expected_version, tag
from gateway.stream.open import resume_after
from shared.db.agents import Agent
from shared.errors import AppError, ErrorCode
from shared.ids import THREAD_ID, new_id, new_run_id, new_thread_id
from shared.threads import again
from shared.threads.types import NewRun, NewThread, Thread
from shared.types import JSON, Priority, Runnable, RunStatus

router = APIRouter(prefix="/agent", tags=["threads"], route_class=StrictJsonRoute)


@router.post(
    "/initiate",
    operation_id="initiateThread",
    dependencies=BEGINS_WORK,
    summary="Open a thread",
    responses=errors(400, 404, 409, 413, 501),
)
async def initiate(
    response: Response,
    services: WithServices,
    caller: Runner,
    idempotency_key: IdempotencyKey = None,
    body: InitiateBody | None = None,
) -> ThreadOpened:
    body = body or InitiateBody()
    project = body.project_id
    request = ["initiate", body.model_dump()]
    thread_id = await services.idempotency.reserve(caller.tenant, idempotency_key, request, new_thread_id())
    if body.agent_id is not None and not await services.history.is_there(thread_id):
        found = await agent_named(services, caller, body.agent_id)
        project = project or (found.project if isinstance(found, Agent) else None)
    project = await services.auth.workspaces.project_of(caller, project)
    if body.flow_uuid and body.flow_input_uuid:
        thread_id = await name_stream(services, caller, body.flow_uuid, body.flow_input_uuid, thread_id)
    new = NewThread(thread_id, caller.workspace, body.metadata, body.context, agent=body.agent_id, project=project)
    return _opened(response, await services.store.create_thread(new))


def _opened(response: Response, thread: Thread) -> ThreadOpened:
    locate(response, "agent", thread.id)
    return ThreadOpened(thread_id=thread.id, created_at=thread.created_at, status=thread.status)


@router.post(
    "/{thread_id}/execute",
    operation_id="execute",
    dependencies=BEGINS_WORK,
    summary="Execute a task",
    responses=errors(400, 404, 409, 413, 501),
)
async def execute(
    thread_id: str, body: ExecuteBody, services: WithServices, caller: Runner, idempotency_key: IdempotencyKey = None
) -> RunAccepted:
    """The run is accepted at once and waits for a worker. Follow it on the thread's stream."""
    thread = await services.thread_of(caller, thread_id)
    check_limits(services.settings, body.parameters, {"body.task": body.task})
    request = ["execute", thread.id, body.model_dump()]
    run_id = await services.idempotency.reserve(caller.tenant, idempotency_key, request, new_run_id(thread.id))
    parameters = body.parameters.model_dump(exclude_none=True)
    definition, parameters = await snapshot(services, caller, thread.agent, parameters, run_id=run_id)
    new = NewRun(
        run_id,
        caller.workspace,
        runnable_id=thread.agent,
        definition=definition,
        input={"task": body.task, "context_data": [item.model_dump() for item in body.context_data]},
        parameters=parameters,
        user_uuid=body.user_uuid or caller.user,
        key_id=caller.key_id,
    )
    submitted = await services.store.submit(new, queued={"task": body.task}, on_busy=body.on_busy)
    if submitted.ring:
        own = submitted.ring == run_id and thread.agent is None
        known = Priority(body.parameters.priority or Priority.NORMAL) if own else None
        services.in_background(services.queue.ring(submitted.ring, priority=known))
    # Not the status of now: whoever sends the request again gets the same answer.
    return RunAccepted(thread_id=thread.id, run_id=run_id, status=RunStatus.PENDING, created_at=submitted.created_at)


@router.post(
    "/{thread_id}/message",
    operation_id="sendMessage",
    summary="Tell the running agent something",
    responses=errors(400, 404, 409, 413),
)
async def send_message(
    thread_id: str, body: MessageBody, services: WithServices, caller: Runner, idempotency_key: IdempotencyKey = None
) -> MessageAccepted:
    """It reads the message at the end of its turn. 409 where no agent is under way: execute a task instead.

    If the run fails or is canceled before, the thread's next run reads it.
    """
    thread = await services.thread_of(caller, thread_id)
    request = ["message", thread.id, body.model_dump()]
    # The run is part of what is reserved: sent again when that run has ended, the message is not for the next one.
    reserved = await services.idempotency.reserved(caller.tenant, idempotency_key, request)
    if reserved is None:
        run_id = await _agent_under_way(services, caller, thread, body.run_id)
        mine = f"{run_id} {new_id()}"
        reserved = await services.idempotency.reserve(caller.tenant, idempotency_key, request, mine)
    run_id, message_id = reserved.split()
    if not await services.store.inject(run_id, {"role": "user", "content": body.content, "id": message_id}):
        raise AppError(ErrorCode.CONFLICT, f"Run {run_id} has ended. Execute a task instead.")
    return MessageAccepted(run_id=run_id, message_id=message_id)


async def _agent_under_way(services: Services, caller: Principal, thread: Thread, run_id: str | None) -> str:
    """The run named, or else the one whose turn it is. Raises AppError CONFLICT, NOT_FOUND."""
    run = await services.run_of(caller, run_id) if run_id else None
    if run is None and thread.head is not None:
        run = await services.store.run(thread.head)
    if run is None or run.thread_id != thread.id or run.runnable_type is not Runnable.AGENT:
        raise AppError(ErrorCode.CONFLICT, "No agent is under way in the thread. Execute a task instead.")
    return run.id


@router.post(
    "/{thread_id}/cancel",
    operation_id="cancelThread",
    summary="Cancel what is under way in a thread",
    responses=errors(400, 404, 409, 413),
)
async def cancel_thread(
    thread_id: str,
    services: WithServices,
    caller: Runner,
    idempotency_key: IdempotencyKey = None,
    _: NoBody | None = None,
) -> ThreadCanceled:
    """The run whose turn it is, and those that wait for theirs."""
    thread = await services.thread_of(caller, thread_id)
    # The runs are what is reserved: sent again, the request is not for those that have come since.
    request, mine = ["cancel", thread.id], " ".join(await services.store.unfinished(thread.id))
    run_ids = (await services.idempotency.reserve(caller.tenant, idempotency_key, request, mine)).split()
    # The last one first, so that none of them begins.
    runs = [await canceled(services, await services.run_of(caller, run_id)) for run_id in reversed(run_ids)]
    return ThreadCanceled(runs=[RunAnswer.of(run) for run in reversed(runs)])


@router.post(
    "/{thread_id}/fork",
    operation_id="forkThread",
    dependencies=BEGINS_WORK,
    summary="Fork a thread",
    responses=errors(400, 404, 409, 413),
)
async def fork_thread(
    thread_id: str,
    *,
    response: Response,
    services: WithServices,
    caller: Runner,
    idempotency_key: IdempotencyKey = None,
    body: ForkThreadBody | None = None,
) -> ThreadOpened:
    """A new thread that begins with this one's conversation, and with its files in a sandbox of its own.

    They are those of the last snapshot, or of the last one that is not later than the step's run: see
    docs/sandboxes.md.
    """
    body = body or ForkThreadBody()
    thread = await services.thread_of(caller, thread_id)
    request = ["fork", thread.id, body.model_dump()]
    new_thread = await services.idempotency.reserve(caller.tenant, idempotency_key, request, new_thread_id())
    messages, up_to = await services.history.messages(thread.id), None
    if body.step_id is not None:
        run = await services.run_of(caller, body.step_id.rpartition(".")[0])
        if run.thread_id != thread.id:
            raise AppError(ErrorCode.NOT_FOUND, f"Thread {thread.id} has no step {body.step_id[:100]}.")
        last, up_to = step_number(run, body.step_id), run.id
        await services.store.bring_back(thread.id, run.id)
        steps = [step for step in await services.store.journal(run.id) if step.number <= last and step.finished]
        messages = await again.conversation(services.store, run, steps)
    await services.store.bring_back(thread.id)
    await services.copy_files(thread.id, new_thread, up_to=up_to)
    metadata = {**thread.metadata, "forked_from": thread.id}
    new = NewThread(new_thread, caller.workspace, metadata, thread.context, agent=thread.agent, project=thread.project)
    return _opened(response, await services.store.create_thread(new, messages))


@router.get("", operation_id="listThreads", summary="List threads, newest first", responses=errors(400))
async def list_threads(
    *,
    services: WithServices,
    caller: Caller,
    limit: Limit = 50,
    cursor: ThreadCursor = None,
    status: Literal["active", "archived"] | None = None,
    project_id: InProject = None,
) -> Page[ThreadAnswer]:
    """A page may have fewer items than `limit`."""
    if cursor is not None and not THREAD_ID.fullmatch(cursor):
        raise bad_cursor()
    threads, following = await services.lists.threads(
        caller.tenant, before=cursor, limit=limit, status=status, project=project_id
    )
    return Page(items=[ThreadAnswer.of(thread) for thread in threads], next_cursor=following)


@router.get("/{thread_id}", operation_id="getThread", summary="A thread", responses=errors(404))
async def get_thread(thread_id: str, response: Response, services: WithServices, caller: Caller) -> ThreadAnswer:
    return _tagged(response, await services.thread_of(caller, thread_id))


@router.patch(
    "/{thread_id}",
    operation_id="updateThread",
    summary="Rename or archive a thread",
    responses=errors(400, 404, 409, 413),
)
async def update_thread(
    thread_id: str,
    body: ThreadPatch,
    *,
    response: Response,
    services: WithServices,
    caller: Writer,
    if_match: IfMatch = None,
) -> ThreadAnswer:
    """What is not given stays as it is."""
    expected = expected_version(if_match, body.expected_version)
    thread = await services.thread_of(caller, thread_id)
    given = body.model_dump(exclude_none=True, exclude={"expected_version"})
    await services.changes.patch_thread(thread, given, expected=expected)
    return _tagged(response, await services.thread_of(caller, thread_id))


def _tagged(response: Response, thread: Thread) -> ThreadAnswer:
    tag(response, thread.revision)
    return ThreadAnswer.of(thread)


@router.delete(
    "/{thread_id}",
    operation_id="deleteThread",
    summary="Delete a thread",
    status_code=204,
    responses=errors(400, 404, 409),
)
async def delete_thread(thread_id: str, services: WithServices, caller: Writer, if_match: IfMatch = None) -> None:
    """With its runs, events, conversation, snapshots and large values. 409 while a run goes on in it."""
    expected = expected_version(if_match)
    await services.changes.delete_thread(await services.thread_of(caller, thread_id), expected=expected)


@router.get(
    "/{thread_id}/messages",
    operation_id="listMessages",
    summary="The conversation as the model sees it, oldest first",
    responses=errors(400, 404),
)
async def list_messages(
    thread_id: str, services: WithServices, caller: Caller, limit: Limit = 50, cursor: NumberCursor = None
) -> Page[JSON]:
    thread = await services.thread_of(caller, thread_id)
    start = offset_of(cursor)
    found = await services.history.messages(thread.id, start, limit + 1)
    return Page(items=found[:limit], next_cursor=str(start + limit) if len(found) > limit else None)


@router.get(
    "/{thread_id}/runs", operation_id="listRunsOfThread", summary="Its runs, oldest first", responses=errors(400, 404)
)
async def list_runs(
    thread_id: str, services: WithServices, caller: Caller, limit: Limit = 50, cursor: Cursor = None
) -> Page[RunAnswer]:
    thread = await services.thread_of(caller, thread_id)
    found = await services.lists.runs_of(thread, after=place_of(cursor), limit=limit + 1)
    return page_of_runs(found, limit)


@router.get(
    "/{thread_id}/stream",
    operation_id="streamThread",
    summary="Follow a thread",
    response_class=Response,
    responses={**EVENT_STREAM, **errors(400, 404)},
    openapi_extra=TAKES_TICKET,
)
async def stream(
    thread_id: str,
    *,
    services: WithServices,
    caller: StreamCaller,
    last_id: LastId = None,
    run_id: Annotated[str | None, Query(description="Only what this run adds; the stream ends with the run.")] = None,
    last_event_id: LastEventId = None,
) -> Response:
    """All events from the first on, or from after `last_id`, then each as it happens."""
    return await services.streams.of_thread(caller, thread_id, resume_after(last_event_id, last_id), run_id)
