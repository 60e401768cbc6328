"""Contexts of agents: JSON documents with all their versions, and a way back to each."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from gateway.agents.known import announce, check_enabled
from gateway.deps import Caller, IdempotencyKey, WithServices, Writer
from gateway.openapi import errors
from gateway.routes.agent_answers import ContextAnswer
from gateway.routes.agent_bodies import ContextBody, RollbackBody
from gateway.routes.answers import Page
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import Limit, NumberCursor, offset_of
from gateway.routes.versions import IfMatch, expected_version, tag
from shared.channels import ChannelEventType
from shared.db import agents, contexts
from shared.db.contexts import NewVersion
from shared.ids import new_id
from shared.types import JSON

ContextName = Annotated[
    str, Query(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$", description="Which of the agent's contexts.")
]

router = APIRouter(
    prefix="/agents/{agent_id}/context",
    tags=["agents"],
    route_class=StrictJsonRoute,
    dependencies=[Depends(check_enabled)],
)


@dataclass(frozen=True, slots=True)
class Writing:
    """A request for a new version."""

    agent_id: str
    response: Response
    services: WithServices
    caller: Writer
    context_name: ContextName = "default"
    if_match: IfMatch = None
    idempotency_key: IdempotencyKey = None

    async def done(
        self, what: str, body: ContextBody | RollbackBody, data: JSON, note: str, *, restored: int | None = None
    ) -> ContextAnswer:
        """`what` the request is for, `restored`: the number of the version whose `data` it is.

        Raises AppError INVALID_REQUEST, NOT_FOUND, CONFLICT.
        """
        services, caller, name = self.services, self.caller, self.context_name
        expected = expected_version(self.if_match, body.expected_version)
        asked = [what, self.agent_id, name, body.model_dump()]
        request = await services.idempotency.reserve(caller.tenant, self.idempotency_key, asked, new_id())
        new = NewVersion(request, data, note, caller.key_id, restored)
        keep = services.settings.agents.context_history_limit
        async with services.db.begin() as c:
            agent = await agents.existing(c, caller.tenant, self.agent_id, to_change=True)
            version = await contexts.write(c, agent, name, new, keep=keep, expected=expected)
        answer = ContextAnswer.of(agent, version)
        told = answer.model_dump(include={"context_name", "version", "note", "restored_version"})
        await announce(services, ChannelEventType.CONTEXT_UPDATED, agent, told)
        tag(self.response, version.number)
        return answer


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
async def write_context(body: ContextBody, writing: Annotated[Writing, Depends()]) -> ContextAnswer:
    """All of the document. With `expected_version` (or If-Match) nobody's change is lost."""
    return await writing.done("context", body, body.data, body.note)


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
async def rollback(body: RollbackBody, writing: Annotated[Writing, Depends()]) -> ContextAnswer:
    """Makes a new version with the data of an older one: what came between stays in the history."""
    async with writing.services.db.connect() as c:
        agent = await agents.existing(c, writing.caller.tenant, writing.agent_id)
        old = await contexts.version(c, agent, writing.context_name, body.version)
    note = body.note or f"back to version {old.number}"
    return await writing.done("rollback", body, old.data, note, restored=old.number)
