"""The tools that agents may be given: those that the workers tell of, and the workspace's own."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from gateway.auth import Principal
from gateway.catalogue.begun import begun
from gateway.catalogue.tools import check_tool
from gateway.catalogue.trials import trial_of
from gateway.deps import BEGINS_WORK, Caller, IdempotencyKey, Runner, Services, WithServices, Writer
from gateway.openapi import errors
from gateway.routes.answers import Page, locate
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import InProject, Limit, ToolCursor, offset_of, page_of, place_of
from gateway.routes.tool_bodies import ToolAnswer, ToolBody, ToolPatch, TrialAnswer, TrialBody
from gateway.routes.versions import IfMatch, expected_version, tag
from shared.db import tools
from shared.db.rows import Place
from shared.db.tools import Tool
from shared.errors import AppError, ErrorCode
from shared.workers.tools import ToolCard, ToolType, told_tools

router = APIRouter(prefix="/tools", tags=["tools"], route_class=StrictJsonRoute)

Id = Annotated[str, Path(max_length=200, description="The id of one of the workspace's, or the name of a worker's.")]


@router.get(
    "", operation_id="listTools", summary="The workspace's tools, and those of the workers", responses=errors(400)
)
async def list_tools(
    services: WithServices,
    *,
    caller: Caller,
    limit: Limit = 50,
    cursor: ToolCursor = None,
    project_id: InProject = None,
    type: Annotated[ToolType | None, Query()] = None,
) -> Page[ToolAnswer]:
    """First the workspace's own, newest first; then by name those that workers tell of (none until one has started):
    built-in ones, those of the configuration, of your code, and of MCP servers. Only the former have projects."""
    if cursor is None or "-" in cursor:
        own = await _page(services, caller, {"project": project_id, "type": type}, limit, cursor)
        if own.next_cursor or project_id is not None:
            return own
    else:
        own = Page[ToolAnswer](items=[], next_cursor=None)
    start, room = offset_of(cursor) if cursor and "-" not in cursor else 0, limit - len(own.items)
    cards = [card for card in await told_tools(services.redis) if type in (None, card.type)]
    items = [*own.items, *map(ToolAnswer.of_worker, cards[start : start + room])]
    return Page(items=items, next_cursor=str(start + room) if len(cards) > start + room else None)


@router.post("", operation_id="createTool", summary="Make a tool", status_code=201, responses=errors(400, 409, 413))
async def create_tool(
    body: ToolBody, response: Response, services: WithServices, caller: Writer, idempotency_key: IdempotencyKey = None
) -> ToolAnswer:
    """Agents that name it in their `tools`, and runs that do in their `parameters`, may use it from then on."""
    tool_id, tool = await begun(services, caller, tools.ROWS.get, idempotency_key, ["tool", body.model_dump()])
    locate(response, "tools", tool_id)
    return _tagged(response, tool or await _made(services, caller, tool_id, body))


async def _made(services: Services, caller: Principal, tool_id: str, body: ToolBody) -> Tool:
    """Raises AppError INVALID_REQUEST, CONFLICT, NOT_FOUND."""
    now = datetime.now(UTC)
    given = await services.auth.workspaces.in_project(caller, body.columns(), new=True)
    new = Tool(id=tool_id, workspace=caller.workspace, created_at=now, updated_at=now, **given)
    await check_tool(services, new)
    async with services.db.begin() as c:
        return await tools.ROWS.add(c, new)


@router.get("/{tool_id}", operation_id="getTool", summary="A tool", responses=errors(400, 404))
async def get_tool(tool_id: Id, response: Response, services: WithServices, caller: Caller) -> ToolAnswer:
    if card := await _card(services, tool_id):
        return ToolAnswer.of_worker(card)
    async with services.db.connect() as c:
        return _tagged(response, await tools.ROWS.existing(c, caller.tenant, tool_id))


@router.patch("/{tool_id}", operation_id="updateTool", summary="Change a tool", responses=errors(400, 404, 409, 413))
async def update_tool(
    tool_id: Id,
    body: ToolPatch,
    *,
    response: Response,
    services: WithServices,
    caller: Writer,
    if_match: IfMatch = None,
) -> ToolAnswer:
    """What is not given stays. Runs that there are already go on with it as it was. 409 for a worker's."""
    expected = expected_version(if_match, body.expected_version)
    values = await services.auth.workspaces.in_project(caller, body.columns(), new=False)
    before = await _own(services, caller, tool_id)
    await check_tool(services, replace(before, **values))
    async with services.db.begin() as c:
        row = await tools.ROWS.existing(c, caller.tenant, tool_id, to_change=True)
        tools.ROWS.check_version(row, before.version)  # what was checked is what is written
        return _tagged(response, await tools.ROWS.change(c, row, values, expected=expected))


@router.delete(
    "/{tool_id}", operation_id="deleteTool", summary="Delete a tool", status_code=204, responses=errors(400, 404, 409)
)
async def delete_tool(tool_id: Id, services: WithServices, caller: Writer, if_match: IfMatch = None) -> None:
    """Runs of agents that name it are refused (409) from then on. 409 for a worker's."""
    expected = expected_version(if_match)
    await _own(services, caller, tool_id)
    async with services.db.begin() as c:
        row = await tools.ROWS.existing(c, caller.tenant, tool_id, to_change=True)
        await tools.ROWS.delete(c, row, expected=expected)


@router.post(
    "/{tool_id}/test",
    operation_id="testTool",
    dependencies=BEGINS_WORK,
    summary="Call a tool once",
    responses={202: {"model": TrialAnswer, "description": "It goes on: follow its run."}, **errors(400, 404, 409, 413)},
)
async def try_tool(
    tool_id: Id,
    body: TrialBody,
    *,
    response: Response,
    services: WithServices,
    caller: Runner,
    idempotency_key: IdempotencyKey = None,
) -> TrialAnswer:
    """As an agent would, with its schemas enforced, by a worker, as a run. 409 for a worker's tool: a run of an agent
    tries those."""
    tool = await _own(services, caller, tool_id)
    wait_seconds = min(body.wait_seconds, services.settings.tools.trial_seconds)
    run = await trial_of(services, caller, tool, body.input, idempotency_key, wait_seconds=wait_seconds)
    if not run.status.terminal:
        response.status_code = 202
    return await TrialAnswer.of(services.store.payloads, run)


async def _page(
    services: Services, caller: Principal, only: dict[str, str | None], limit: int, cursor: str | None
) -> Page[ToolAnswer]:
    after = place_of(cursor)
    async with services.db.connect() as c:
        found = await tools.ROWS.page(c, caller.tenant, only, after=after, limit=limit + 1)
    return page_of(found, limit, ToolAnswer.of, lambda row: Place(row.created_at, row.id))


async def _card(services: Services, name: str) -> ToolCard | None:
    return next((card for card in await told_tools(services.redis) if card.name == name), None)


async def _own(services: Services, caller: Principal, tool_id: str) -> Tool:
    """The workspace's. Raises AppError NOT_FOUND, CONFLICT for one of the workers."""
    if card := await _card(services, tool_id):
        detail = f"{card.name} is a tool of the workers ({card.type}), and not the workspace's to change or to test."
        raise AppError(ErrorCode.CONFLICT, detail)
    async with services.db.connect() as c:
        return await tools.ROWS.existing(c, caller.tenant, tool_id)


def _tagged(response: Response, row: Tool) -> ToolAnswer:
    tag(response, row.version)
    return ToolAnswer.of(row)
