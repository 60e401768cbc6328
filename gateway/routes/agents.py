"""Agents: what kinds there are, and what a workspace has made of them."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

from gateway.agents.known import catalogue_of, check_enabled, check_named
from gateway.agents.moves import announce_move, check_move, hook_run, hook_values, move, submit_hooks
from gateway.auth import Principal
from gateway.catalogue.begun import begun
from gateway.deps import Caller, IdempotencyKey, Services, WithServices, Writer
from gateway.openapi import errors
from gateway.routes.agent_answers import AgentAnswer, DefinitionAnswer
from gateway.routes.agent_bodies import AgentPatch, NewAgentBody
from gateway.routes.agent_servers import with_kept
from gateway.routes.answers import Page, locate
from gateway.routes.bodies import NoBody
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import Cursor, InProject, Limit, Skip, Word, page_of, place_of
from gateway.routes.versions import IfMatch, expected_version, tag
from shared.db import agents
from shared.db.agents import Agent, AgentFilter, AgentStatus
from shared.db.rows import Place
from shared.errors import AppError, ErrorCode

router = APIRouter(
    prefix="/agents", tags=["agents"], route_class=StrictJsonRoute, dependencies=[Depends(check_enabled)]
)


def only(
    project_id: InProject = None,
    status: AgentStatus | None = None,
    definition_id: Word | None = None,
) -> AgentFilter:
    """What a list's query asks for."""
    return AgentFilter(project_id, status, definition_id)


@router.get("/definitions", operation_id="listAgentDefinitions", summary="The kinds of agents", responses=errors(501))
async def list_definitions(services: WithServices, _: Caller) -> Page[DefinitionAnswer]:
    """Those that the workers know: built-in ones, those of the configuration, those of your code."""
    cards = (await catalogue_of(services)).definitions
    items = [DefinitionAnswer.model_validate(card, from_attributes=True) for card in cards]
    return Page(items=items, next_cursor=None)


@router.get("", operation_id="listAgents", summary="List agents, newest first", responses=errors(400, 501))
async def list_agents(
    services: WithServices,
    *,
    caller: Caller,
    wanted: Annotated[AgentFilter, Depends(only)],
    limit: Limit = 50,
    cursor: Cursor = None,
    skip: Skip = 0,
) -> Page[AgentAnswer]:
    after = place_of(cursor)
    async with services.db.connect() as c:
        found = await agents.page(c, caller.tenant, wanted, after=after, limit=limit + 1, skip=skip)
    return page_of(found, limit, AgentAnswer.of, lambda agent: Place(agent.created_at, agent.id))


@router.post(
    "",
    operation_id="createAgent",
    summary="Make an agent",
    status_code=201,
    responses=errors(400, 409, 413, 501),
)
async def create_agent(
    body: NewAgentBody,
    response: Response,
    services: WithServices,
    caller: Writer,
    idempotency_key: IdempotencyKey = None,
) -> AgentAnswer:
    """Of a definition; what the agent says itself goes before it, and what a run's request says before both."""
    agent_id, agent = await begun(services, caller, agents.get, idempotency_key, ["agent", body.model_dump()])
    agent = agent or await _made(services, caller, agent_id, body)
    if body.begins_active and agent.version == 1:
        agent = await move(services, caller, agent.id, AgentStatus.ACTIVE)
    locate(response, "agents", agent.id)
    return await _answer(services, agent, response)


async def _made(services: Services, caller: Principal, agent_id: str, body: NewAgentBody) -> Agent:
    """Raises AppError INVALID_REQUEST, CONFLICT, NOT_FOUND."""
    values = body.values(base_url=services.settings.llm.base_url)
    await check_named(services, caller, {"definition": body.definition_id, **values})
    values |= {"mcp_servers": with_kept(values["mcp_servers"], None)} if values.get("mcp_servers") else {}
    values = await services.auth.workspaces.in_project(caller, values, new=True)
    now = datetime.now(UTC)
    new = Agent(agent_id, caller.workspace, body.definition_id, body.name, now, now)
    async with services.db.begin() as c:
        return await agents.add(c, replace(new, **values))


@router.get("/{agent_id}", operation_id="getAgent", summary="An agent", responses=errors(404, 501))
async def get_agent(agent_id: str, response: Response, services: WithServices, caller: Caller) -> AgentAnswer:
    async with services.db.connect() as c:
        agent = await agents.existing(c, caller.tenant, agent_id)
    return await _answer(services, agent, response)


@router.patch(
    "/{agent_id}", operation_id="updateAgent", summary="Change an agent", responses=errors(400, 404, 409, 413, 501)
)
async def update_agent(
    agent_id: str,
    body: AgentPatch,
    *,
    response: Response,
    services: WithServices,
    caller: Writer,
    if_match: IfMatch = None,
) -> AgentAnswer:
    """What is not given stays; null takes the definition's. Runs that there are already go on as they began."""
    expected = expected_version(if_match, body.expected_version)
    values = body.values(base_url=services.settings.llm.base_url)
    await check_named(services, caller, values)
    values = await services.auth.workspaces.in_project(caller, values)
    agent = await _changed(services, caller, agent_id, values, to=body.status, expected=expected)
    return await _answer(services, agent, response)


@router.delete(
    "/{agent_id}",
    operation_id="deleteAgent",
    summary="Delete an agent",
    status_code=204,
    responses=errors(400, 404, 409, 501),
)
async def delete_agent(agent_id: str, services: WithServices, caller: Writer, if_match: IfMatch = None) -> None:
    """With its contexts and messages; its threads and runs stay. An active one is deactivated or shut down first."""
    expected = expected_version(if_match)
    async with services.db.begin() as c:
        agent = await agents.existing(c, caller.tenant, agent_id, to_change=True)
        if agent.status is AgentStatus.ACTIVE:
            raise AppError(ErrorCode.CONFLICT, f"Agent {agent.id} is active. Deactivate it, or shut it down, first.")
        await agents.delete(c, agent, expected=expected)


MOVES: dict[int | str, Any] = errors(400, 404, 409, 413, 501)


@dataclass(frozen=True, slots=True)
class Move:
    """A request for another status."""

    agent_id: str
    response: Response
    services: WithServices
    caller: Writer
    if_match: IfMatch = None
    nothing: NoBody | None = None

    async def done(self, to: AgentStatus) -> AgentAnswer:
        """Raises AppError INVALID_REQUEST, NOT_FOUND, CONFLICT."""
        agent = await move(self.services, self.caller, self.agent_id, to, expected=expected_version(self.if_match))
        return await _answer(self.services, agent, self.response)


@router.post("/{agent_id}/activate", operation_id="activateAgent", summary="Let it take runs", responses=MOVES)
async def activate(wanted: Annotated[Move, Depends()]) -> AgentAnswer:
    """Where its definition has code for that (`hooks`), runs are refused (409) until that has succeeded.

    Asked again when it failed, what failed is tried again.
    """
    return await wanted.done(AgentStatus.ACTIVE)


@router.post("/{agent_id}/deactivate", operation_id="deactivateAgent", summary="Give it no new runs", responses=MOVES)
async def deactivate(wanted: Annotated[Move, Depends()]) -> AgentAnswer:
    """Those that there are go on."""
    return await wanted.done(AgentStatus.INACTIVE)


@router.post("/{agent_id}/shutdown", operation_id="shutdownAgent", summary="Be done with it", responses=MOVES)
async def shutdown(wanted: Annotated[Move, Depends()]) -> AgentAnswer:
    """For good: it cannot be activated again. Its contexts and messages can be read as before."""
    return await wanted.done(AgentStatus.SHUTDOWN)


async def _changed(
    services: Services,
    caller: Principal,
    agent_id: str,
    values: dict[str, Any],
    *,
    to: AgentStatus | None,
    expected: int | None,
) -> Agent:
    """All of it in one version, and in one transaction. Raises AppError NOT_FOUND, CONFLICT, INVALID_REQUEST."""
    catalogue = await catalogue_of(services)
    async with services.db.begin() as c:
        before = await agents.existing(c, caller.tenant, agent_id, to_change=True)
        if servers := values.get("mcp_servers"):
            values = {**values, "mcp_servers": with_kept(servers, before.mcp_servers)}
        if to is not None and to is not before.status:
            check_move(before, to)
            card = catalogue.definition(before.definition)
            values = {**values, "status": to, **(hook_values(before, to) if card and card.hooks else {})}
        agent = await agents.change(c, before, values, expected=expected)
    agent = await submit_hooks(services, agent, key_id=caller.key_id)
    if agent.status is not before.status:
        await announce_move(services, agent, before.status)
    return agent


async def _answer(services: Services, agent: Agent, response: Response) -> AgentAnswer:
    tag(response, agent.version)
    return AgentAnswer.of(agent, await hook_run(services, agent))
