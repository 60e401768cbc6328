"""WebSockets: a thread both ways, a run's log, a workspace's agents. docs/streaming.md says what goes over them."""

from collections.abc import Collection
from typing import Annotated

from fastapi import APIRouter, Query, WebSocket

from gateway.auth import Principal
from gateway.deps import Services, StreamCaller, WithServices
from gateway.errors import invalid
from gateway.routes.frames import THREAD_ACTS, Frames, Sender
from gateway.routes.runs import LastId
from gateway.stream.ws import Talk
from shared.db import agents
from shared.errors import AppError, ErrorCode, FieldError
from shared.ids import is_row_id

MAX_AGENTS = 100

router = APIRouter(prefix="/ws")


@router.websocket("/agent/{thread_id}", name="threadSocket")
async def thread_socket(
    socket: WebSocket, thread_id: str, services: WithServices, caller: StreamCaller, last_id: LastId = None
) -> None:
    """A thread's events, and frames to execute, message, cancel, approve."""
    subscription = await services.streams.thread_socket(caller, thread_id, last_id)
    frames = Frames(Sender(services, caller, socket.scope, thread_id), THREAD_ACTS)
    await Talk(socket, subscription, frames.answer).hold()


@router.websocket("/runs/{run_id}/logs", name="runLogSocket")
async def run_log_socket(
    socket: WebSocket, run_id: str, services: WithServices, caller: StreamCaller, last_id: LastId = None
) -> None:
    """A run's log lines; it is closed after the run's end."""
    subscription = await services.streams.log_socket(caller, run_id, last_id)
    await Talk(socket, subscription, Frames(Sender(services, caller, socket.scope), {}).answer).hold()


@router.websocket("/agents/stream", name="agentsSocket")
async def agents_socket(
    socket: WebSocket,
    *,
    services: WithServices,
    caller: StreamCaller,
    workspace_id: str | None = None,
    agent_id: Annotated[str | None, Query(description="Only these agents, with commas between them.")] = None,
    last_id: LastId = None,
) -> None:
    """The events of a workspace's agents."""
    if workspace_id not in (None, caller.workspace):
        raise AppError(ErrorCode.NOT_FOUND, f"There is no workspace {workspace_id[:100]}.")
    named = _agents_in(agent_id)
    await _check_agents(services, caller, named or ())
    subscription = await services.streams.agents_socket(caller, named, last_id)
    await Talk(socket, subscription, Frames(Sender(services, caller, socket.scope), {}).answer).hold()


@router.websocket("/agents/{agent_id}", name="agentSocket")
async def agent_socket(
    socket: WebSocket, agent_id: str, services: WithServices, caller: StreamCaller, last_id: LastId = None
) -> None:
    """One agent's events."""
    await _check_agents(services, caller, {agent_id})
    subscription = await services.streams.agents_socket(caller, {agent_id}, last_id)
    await Talk(socket, subscription, Frames(Sender(services, caller, socket.scope), {}).answer).hold()


async def _check_agents(services: Services, caller: Principal, named: Collection[str]) -> None:
    """Raises AppError NOT_FOUND, for an agent of somebody else too."""
    if not named:
        return
    missing = [agent_id for agent_id in named if not is_row_id(agent_id)]  # Postgres takes not every text
    if not missing:
        async with services.db.connect() as c:
            missing = await agents.missing(c, caller.tenant, named)
    if missing:
        raise AppError(ErrorCode.NOT_FOUND, f"There is no agent {missing[0][:100]}.")


def _agents_in(agent_id: str | None) -> set[str] | None:
    """None: all. Raises AppError INVALID_REQUEST."""
    if agent_id is None:
        return None
    named = {part.strip() for part in agent_id.split(",")} - {""}
    if not 1 <= len(named) <= MAX_AGENTS:
        detail = f"should be 1 to {MAX_AGENTS} agents' ids with commas between them"
        raise invalid([FieldError(place="query.agent_id", detail=detail)])
    return named
