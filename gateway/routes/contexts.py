"""Contexts of agents: JSON documents with all their versions, and a way back to each."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from gateway.agents.known import announce, check_enabled
from gateway.auth import Principal
from gateway.deps import Caller, IdempotencyKey, Services, WithServices, Writer
from gateway.openapi import errors
from gateway.routes.agent_answers import ContextAnswer
from gateway.routes.agent_bodies import ContextBody, RollbackBody
from gateway.routes.answers import Page
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import Limit, NumberCursor, offset_of
from gateway.routes.versions import IfMatch, expected_version, tag
from shared.channels import ChannelEventType
from shared.db import agents, contexts
from shared.db.agents import Agent
from shared.db.contexts import ContextVersion, NewVersion
from shared.ids import new_id

ContextName = Annotated[
    str, Query(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$", description="Which of the agent's contexts.")
]

router = APIRouter(
    prefix="/agents/{agent_id}/context",
    tags=["agents"],
    route_class=StrictJsonRoute,
    dependencies=[Depends(check_enabled)],
)


@router.get("", operation_id="getContext", summary="A context", responses=errors(400, 404, 501))
async def get_context(
    agent_id: str, response: Response, services: WithServices, caller: Caller, context_name: ContextName = "default"
) -> ContextAnswer:
    """Its newest version. One that was never written is empty, and at version 0."""
    async with services.db.connect() as c:
        agent = await agents.existing(c, caller.tenant, agent_id)
        version = await contexts.current(c, agent, context_name) or contexts.unwritten(agent, context_name)
    tag(response, version.number)
    return ContextAnswer.of(agent, version)


@router.post(
    "",
    operation_id="writeContext",
    summary="Write a version",
    status_code=201,
    responses=errors(400, 404, 409, 413, 501),
)
async def write_context(
    agent_id: str,
    body: ContextBody,
    *,
    response: Response,
    services: WithServices,
    caller: Writer,
    context_name: ContextName = "default",
    if_match: IfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> ContextAnswer:
    """All of the document. With `expected_version` (or If-Match) nobody's change is lost."""
    expected = expected_version(if_match, body.expected_version)
    asked = ["context", agent_id, context_name, body.model_dump()]
    request = await services.idempotency.reserve(caller.tenant, idempotency_key, asked, new_id())
    new = NewVersion(request, body.data, body.note, caller.key_id)
    agent, version = await _written(services, caller, agent_id, context_name, new, expected=expected)
    tag(response, version.number)
    return ContextAnswer.of(agent, version)


@router.get(
    "/versions",
    operation_id="listContextVersions",
    summary="Its versions, newest first",
    responses=errors(400, 404, 501),
)
async def list_versions(
    agent_id: str,
    *,
    services: WithServices,
    caller: Caller,
    context_name: ContextName = "default",
    limit: Limit = 50,
    cursor: NumberCursor = None,
) -> Page[ContextAnswer]:
    """Those that are kept (`agents.context_history_limit`)."""
    before = None if cursor is None else offset_of(cursor)
    async with services.db.connect() as c:
        agent = await agents.existing(c, caller.tenant, agent_id)
        found = await contexts.versions(c, agent, context_name, before=before, limit=limit + 1)
    more = len(found) > limit
    items = [ContextAnswer.of(agent, version) for version in found[:limit]]
    return Page(items=items, next_cursor=str(items[-1].version) if more else None)


@router.post(
    "/rollback",
    operation_id="rollbackContext",
    summary="Go back to a version",
    status_code=201,
    responses=errors(400, 404, 409, 413, 501),
)
async def rollback(
    agent_id: str,
    body: RollbackBody,
    *,
    response: Response,
    services: WithServices,
    caller: Writer,
    context_name: ContextName = "default",
    if_match: IfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> ContextAnswer:
    """Makes a new version with the data of an older one: what came between stays in the history."""
    expected = expected_version(if_match, body.expected_version)
    async with services.db.connect() as c:
        agent = await agents.existing(c, caller.tenant, agent_id)
        old = await contexts.version(c, agent, context_name, body.version)
    note = body.note or f"back to version {old.number}"
    asked = ["rollback", agent_id, context_name, body.model_dump()]
    request = await services.idempotency.reserve(caller.tenant, idempotency_key, asked, new_id())
    new = NewVersion(request, old.data, note, caller.key_id, restored=old.number)
    agent, version = await _written(services, caller, agent_id, context_name, new, expected=expected)
    tag(response, version.number)
    return ContextAnswer.of(agent, version)


async def _written(
    services: Services, caller: Principal, agent_id: str, name: str, new: NewVersion, *, expected: int | None
) -> tuple[Agent, ContextVersion]:
    async with services.db.begin() as c:
        agent = await agents.existing(c, caller.tenant, agent_id, to_change=True)
        keep = services.settings.agents.context_history_limit
        version = await contexts.write(c, agent, name, new, keep=keep, expected=expected)
    data = {"context_name": name, "version": version.number, "note": version.note, "restored_version": version.restored}
    await announce(services, ChannelEventType.CONTEXT_UPDATED, agent, data)
    return agent, version
