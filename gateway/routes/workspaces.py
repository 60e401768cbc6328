"""Workspaces: the tenants of an installation."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.auth import DEFAULT_WORKSPACE, Principal
from gateway.deps import Admin, Caller, IdempotencyKey, Operator, Services, WithServices
from gateway.openapi import errors
from gateway.routes.answers import Page, Timestamp, locate
from gateway.routes.bodies import JsonObject, Name, RowBody, Version
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import Cursor, Limit, page_of, place_of
from gateway.routes.versions import IfMatch, expected_version, tag
from shared.db import keys, workspaces
from shared.db.rows import Place
from shared.db.workspaces import Workspace
from shared.errors import AppError, ErrorCode
from shared.ids import is_row_id, new_id
from shared.tenant import Tenant
from shared.types import JSON

router = APIRouter(prefix="/workspaces", tags=["workspaces"], route_class=StrictJsonRoute)

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Its name in addresses.")]


class WorkspaceBody(RowBody):
    slug: Slug
    name: Name
    metadata: JsonObject = Field(default={}, description="Whatever the client wants to keep with it.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"slug": "acme", "name": "Acme Ltd"}]})


class WorkspacePatch(RowBody):
    slug: Slug | None = None
    name: Name | None = None
    metadata: JsonObject | None = Field(default=None, description="All of it anew.")
    expected_version: Version | None = Field(default=None, description="As `If-Match`.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Acme Limited"}]})


class WorkspaceAnswer(BaseModel):
    id: str
    slug: str
    name: str
    metadata: JSON
    version: int
    created_at: Timestamp
    updated_at: Timestamp

    @classmethod
    def of(cls, workspace: Workspace) -> Self:
        return cls.model_validate(workspace, from_attributes=True)


@router.get("", operation_id="listWorkspaces", summary="Those that the caller may use", responses=errors(400))
async def list_workspaces(
    services: WithServices, caller: Caller, limit: Limit = 50, cursor: Cursor = None
) -> Page[WorkspaceAnswer]:
    """Newest first. All there are, for the operator's keys."""
    after = place_of(cursor)
    among = None if caller.workspaces is None else caller.workspaces | {caller.workspace}
    async with services.db.connect() as c:
        found = await workspaces.page(c, among, after=after, limit=limit + 1)
    return page_of(found, limit, WorkspaceAnswer.of, lambda each: Place(each.created_at, each.id))


@router.post(
    "",
    operation_id="createWorkspace",
    summary="Make a workspace",
    status_code=201,
    responses=errors(400, 409, 413),
)
async def create_workspace(
    body: WorkspaceBody,
    services: WithServices,
    caller: Operator,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> WorkspaceAnswer:
    """For the operator's keys only. Select it by `X-Workspace-Id` to make its first key."""
    request = ["workspace", body.model_dump()]
    workspace_id = await services.idempotency.reserve(caller.tenant, idempotency_key, request, new_id())
    now = datetime.now(UTC)
    new = Workspace(workspace_id, body.slug, body.name, body.metadata, version=1, created_at=now, updated_at=now)
    async with services.db.begin() as c:
        made = await workspaces.add(c, new)
    services.auth.workspaces.forget(made)
    locate(response, "workspaces", made.id)
    return _tagged(response, made)


@router.get("/{workspace_id}", operation_id="getWorkspace", summary="A workspace", responses=errors(404))
async def get_workspace(
    workspace_id: str, services: WithServices, caller: Caller, response: Response
) -> WorkspaceAnswer:
    return _tagged(response, await _workspace_of(services, caller, workspace_id))


@router.patch(
    "/{workspace_id}",
    operation_id="updateWorkspace",
    summary="Change a workspace",
    responses=errors(400, 404, 409, 413),
)
async def update_workspace(
    workspace_id: str,
    body: WorkspacePatch,
    *,
    services: WithServices,
    caller: Admin,
    response: Response,
    if_match: IfMatch = None,
) -> WorkspaceAnswer:
    """What is not given stays as it is."""
    caller.check_whole_workspace()
    known = await _workspace_of(services, caller, workspace_id)
    given = body.model_dump(exclude_none=True, exclude={"expected_version"})
    values: dict[str, Any] = {**given, "updated_at": datetime.now(UTC)}
    expected = expected_version(if_match, body.expected_version)
    async with services.db.begin() as c:
        changed = await workspaces.change(c, known.id, values, expected=expected)
    if changed is None:
        raise _no_such(workspace_id)
    services.auth.workspaces.forget(known)
    return _tagged(response, changed)


@router.delete(
    "/{workspace_id}",
    operation_id="deleteWorkspace",
    summary="Delete a workspace",
    status_code=204,
    responses=errors(400, 404, 409),
)
async def delete_workspace(
    workspace_id: str, services: WithServices, caller: Operator, if_match: IfMatch = None
) -> None:
    """With its keys, projects, agents and all else, for ever. 409 while it has threads.

    For the operator's keys only.
    """
    expected = expected_version(if_match)
    known = await _workspace_of(services, caller, workspace_id)
    if known.id == DEFAULT_WORKSPACE:
        raise AppError(ErrorCode.CONFLICT, "The default workspace stays.")
    if await services.lists.has_threads(Tenant(known.id)):
        raise AppError(ErrorCode.CONFLICT, "The workspace has threads: delete them first.")
    async with services.db.begin() as c:
        revoked = await keys.of_workspace(c, known.id)
        await workspaces.remove(c, known.id, expected=expected)
    await services.auth.ring.revoke(services.redis, revoked)
    services.auth.workspaces.forget(known)


async def _workspace_of(services: Services, caller: Principal, workspace_id: str) -> Workspace:
    """Raises AppError NOT_FOUND, for one that the caller may not use too."""
    found = None
    if is_row_id(workspace_id) and caller.may_select(workspace_id):
        async with services.db.connect() as c:
            found = await workspaces.get(c, workspace_id)
    if found is None:
        raise _no_such(workspace_id)
    return found


def _tagged(response: Response, workspace: Workspace) -> WorkspaceAnswer:
    tag(response, workspace.version)
    return WorkspaceAnswer.of(workspace)


def _no_such(workspace_id: str) -> AppError:
    return AppError(ErrorCode.NOT_FOUND, f"There is no workspace {workspace_id[:100]}.")
