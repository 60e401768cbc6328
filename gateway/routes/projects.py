"""Projects: what a workspace is divided into."""

from datetime import UTC, datetime
from typing import Annotated, Self

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.deps import Caller, IdempotencyKey, WithServices, Writer
from gateway.openapi import errors
from gateway.routes.answers import Page, Timestamp, locate
from gateway.routes.bodies import JsonObject, Name, RowBody, Version
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import Cursor, Limit, page_of, place_of
from gateway.routes.versions import IfMatch, expected_version, tag
from shared.db import projects
from shared.db.projects import Project
from shared.db.rows import Place
from shared.errors import AppError, ErrorCode
from shared.ids import new_id
from shared.tenant import Tenant
from shared.types import JSON

router = APIRouter(prefix="/projects", tags=["projects"], route_class=StrictJsonRoute)

Description = Annotated[str, Field(max_length=10_000)]


class ProjectBody(RowBody):
    name: Name = Field(description="No other project of the workspace has it.")
    description: Description = ""
    metadata: JsonObject = Field(default={}, description="Whatever the client wants to keep with it.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "website", "description": "The public pages"}]})


class ProjectPatch(RowBody):
    name: Name | None = None
    description: Description | None = None
    metadata: JsonObject | None = Field(default=None, description="All of it anew.")
    expected_version: Version | None = Field(default=None, description="As `If-Match`.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"description": "The public pages and the blog"}]})


class ProjectAnswer(BaseModel):
    id: str
    workspace_id: str
    name: str
    description: str
    metadata: JSON
    version: int
    created_at: Timestamp
    updated_at: Timestamp

    @classmethod
    def of(cls, project: Project) -> Self:
        return cls(
            id=project.id,
            workspace_id=project.workspace,
            name=project.name,
            description=project.description,
            metadata=project.metadata,
            version=project.version,
            created_at=project.created_at,
            updated_at=project.updated_at,
        )


@router.get("", operation_id="listProjects", summary="The workspace's projects, newest first", responses=errors(400))
async def list_projects(
    services: WithServices, caller: Caller, limit: Limit = 50, cursor: Cursor = None
) -> Page[ProjectAnswer]:
    after = place_of(cursor)
    async with services.db.connect() as c:
        found = await projects.page(c, caller.tenant, {}, after=after, limit=limit + 1)
    return page_of(found, limit, ProjectAnswer.of, lambda each: Place(each.created_at, each.id))


@router.post(
    "",
    operation_id="createProject",
    summary="Make a project",
    status_code=201,
    responses=errors(400, 409, 413),
)
async def create_project(
    body: ProjectBody,
    services: WithServices,
    caller: Writer,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> ProjectAnswer:
    """Threads and keys may belong to it; what is limited to it sees nothing else of the workspace."""
    caller.check_whole_workspace()
    request = ["project", body.model_dump()]
    project_id = await services.idempotency.reserve(caller.tenant, idempotency_key, request, new_id())
    now = datetime.now(UTC)
    new = Project(project_id, caller.workspace, **body.model_dump(), version=1, created_at=now, updated_at=now)
    async with services.db.begin() as c:
        made = await projects.add(c, new)
    locate(response, "projects", made.id)
    return _tagged(response, made)


@router.get("/{project_id}", operation_id="getProject", summary="A project", responses=errors(404))
async def get_project(project_id: str, services: WithServices, caller: Caller, response: Response) -> ProjectAnswer:
    async with services.db.connect() as c:
        return _tagged(response, await projects.existing(c, caller.tenant, project_id))


@router.patch(
    "/{project_id}", operation_id="updateProject", summary="Change a project", responses=errors(400, 404, 409, 413)
)
async def update_project(
    project_id: str,
    body: ProjectPatch,
    *,
    services: WithServices,
    caller: Writer,
    response: Response,
    if_match: IfMatch = None,
) -> ProjectAnswer:
    """What is not given stays as it is."""
    values = body.model_dump(exclude_none=True, exclude={"expected_version"})
    expected = expected_version(if_match, body.expected_version)
    async with services.db.begin() as c:
        known = await projects.existing(c, caller.tenant, project_id, to_change=True)
        return _tagged(response, await projects.change(c, known, values, expected=expected))


@router.delete(
    "/{project_id}",
    operation_id="deleteProject",
    summary="Delete a project",
    status_code=204,
    responses=errors(400, 404, 409),
)
async def delete_project(project_id: str, services: WithServices, caller: Writer, if_match: IfMatch = None) -> None:
    """With its revoked keys. 409 while something else is in it: threads, keys that count, agents."""
    expected = expected_version(if_match)
    caller.check_whole_workspace()
    async with services.db.connect() as c:
        known = await projects.existing(c, caller.tenant, project_id)
    if await services.lists.has_threads(Tenant(known.workspace, known.id)):
        raise AppError(ErrorCode.CONFLICT, "The project has threads: delete them first.")
    async with services.db.begin() as c:
        known = await projects.existing(c, caller.tenant, project_id, to_change=True)
        await projects.remove(c, known, expected=expected)
    services.auth.workspaces.forget_project(known.workspace, known.id)


def _tagged(response: Response, project: Project) -> ProjectAnswer:
    tag(response, project.version)
    return ProjectAnswer.of(project)
