"""Workflows: graphs of agents, tools, branches and people, and every version that they have had."""

from datetime import UTC, datetime
from typing import Annotated, Self

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.auth import Principal
from gateway.catalogue.begun import begun
from gateway.catalogue.graphs import check_graph, graph_problems
from gateway.deps import Caller, IdempotencyKey, Services, WithServices, Writer
from gateway.openapi import errors
from gateway.routes.answers import Page, RunAnswer, Timestamp, locate
from gateway.routes.bodies import JsonObject, Name, RowBody, Version
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import Cursor, InProject, Limit, NumberCursor, offset_of, page_of, place_of
from gateway.routes.row_bodies import RowFields
from gateway.routes.runs import page_of_runs
from gateway.routes.versions import IfMatch, expected_version, tag
from shared.db import workflows
from shared.db.history import RunFilter
from shared.db.rows import Place
from shared.db.workflows import GraphVersion, Workflow
from shared.graph import Graph
from shared.types import JSON, Runnable

router = APIRouter(prefix="/workflows", tags=["workflows"], route_class=StrictJsonRoute)

EXAMPLE: JSON = {
    "nodes": [
        {"id": "begin", "type": "start"},
        {"id": "look", "type": "agent", "label": "Look it up", "agent_id": "researcher"},
        {"id": "done", "type": "end"},
    ],
    "edges": [
        {"id": "e1", "from_node_id": "begin", "to_node_id": "look"},
        {"id": "e2", "from_node_id": "look", "to_node_id": "done"},
    ],
}


class WorkflowBody(RowFields):
    name: Name
    graph: JsonObject = Field(description="Nodes and edges: see docs/teams-tools-workflows.md.")
    note: Annotated[str, Field(max_length=1000)] = Field(default="", description="What is new in this version.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Look it up", "graph": EXAMPLE}]})


class WorkflowChange(WorkflowBody):
    expected_version: Version | None = Field(default=None, description="As `If-Match`.")

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "Look it up", "graph": EXAMPLE, "expected_version": 1}]}
    )

    def columns(self) -> JSON:
        """All of them: what is not given is as of a new one."""
        return {"description": "", "project": None, "metadata": {}, **super().columns()}


class GraphBody(RowBody):
    graph: JsonObject

    model_config = ConfigDict(json_schema_extra={"examples": [{"graph": EXAMPLE}]})


class GraphProblem(BaseModel):
    place: str = Field(examples=["graph.nodes[1].agent_id"])
    detail: str


class GraphJudged(BaseModel):
    valid: bool
    problems: list[GraphProblem] = Field(description="All that keeps it from being run.")


class WorkflowAnswer(BaseModel):
    id: str
    name: str
    description: str
    project_id: str | None
    graph: Graph
    graph_version: int = Field(description="Of the graph alone: renaming a workflow makes none.")
    metadata: JSON
    version: int
    created_at: Timestamp
    updated_at: Timestamp

    @classmethod
    def of(cls, row: Workflow) -> Self:
        same = ("id", "name", "description", "graph_version", "metadata", "version", "created_at", "updated_at")
        return cls(
            project_id=row.project,
            graph=Graph.model_validate(row.graph),
            **{name: getattr(row, name) for name in same},
        )


class GraphVersionAnswer(BaseModel):
    workflow_id: str
    graph_version: int
    graph: Graph
    note: str
    created_by: str | None = Field(description="The id of the key that wrote it.")
    created_at: Timestamp

    @classmethod
    def of(cls, version: GraphVersion) -> Self:
        return cls(
            workflow_id=version.workflow,
            graph_version=version.number,
            graph=Graph.model_validate(version.graph),
            note=version.note,
            created_by=version.created_by,
            created_at=version.created_at,
        )


@router.get("", operation_id="listWorkflows", summary="List workflows, newest first", responses=errors(400))
async def list_workflows(
    services: WithServices, caller: Caller, limit: Limit = 50, cursor: Cursor = None, project_id: InProject = None
) -> Page[WorkflowAnswer]:
    after = place_of(cursor)
    async with services.db.connect() as c:
        only = {"project": project_id}
        found = await workflows.ROWS.page(c, caller.tenant, only, after=after, limit=limit + 1)
    return page_of(found, limit, WorkflowAnswer.of, lambda row: Place(row.created_at, row.id))


@router.post(
    "", operation_id="createWorkflow", summary="Make a workflow", status_code=201, responses=errors(400, 409, 413)
)
async def create_workflow(
    body: WorkflowBody,
    response: Response,
    services: WithServices,
    caller: Writer,
    idempotency_key: IdempotencyKey = None,
) -> WorkflowAnswer:
    """Its graph is checked, with the agents and tools that it names."""
    request = ["workflow", body.model_dump()]
    row_id, workflow = await begun(services, caller, workflows.ROWS.get, idempotency_key, request)
    locate(response, "workflows", row_id)
    return _tagged(response, workflow or await _made(services, caller, row_id, body))


async def _made(services: Services, caller: Principal, row_id: str, body: WorkflowBody) -> Workflow:
    """Raises AppError INVALID_REQUEST, NOT_FOUND."""
    given = await services.auth.workspaces.in_project(caller, body.columns(), new=True)
    given["graph"] = await check_graph(services, caller, body.graph)
    now = datetime.now(UTC)
    new = Workflow(id=row_id, workspace=caller.workspace, created_at=now, updated_at=now, **given)
    async with services.db.begin() as c:
        return await workflows.add(c, new, note=body.note, by=caller.key_id)


@router.post(
    "/validate", operation_id="validateWorkflow", summary="Check a graph, and keep nothing", responses=errors(400, 413)
)
async def validate_workflow(body: GraphBody, services: WithServices, caller: Caller) -> GraphJudged:
    _, found = await graph_problems(services, caller, body.graph)
    problems = [GraphProblem(place=each["place"], detail=each["detail"]) for each in found]
    return GraphJudged(valid=not problems, problems=problems)


@router.get("/{workflow_id}", operation_id="getWorkflow", summary="A workflow", responses=errors(404))
async def get_workflow(workflow_id: str, response: Response, services: WithServices, caller: Caller) -> WorkflowAnswer:
    async with services.db.connect() as c:
        return _tagged(response, await workflows.ROWS.existing(c, caller.tenant, workflow_id))


@router.put(
    "/{workflow_id}", operation_id="replaceWorkflow", summary="Replace a workflow", responses=errors(400, 404, 409, 413)
)
async def replace_workflow(
    workflow_id: str,
    body: WorkflowChange,
    *,
    response: Response,
    services: WithServices,
    caller: Writer,
    if_match: IfMatch = None,
) -> WorkflowAnswer:
    """Another graph is a new version; those before are kept. Runs that there are go on with theirs."""
    expected = expected_version(if_match, body.expected_version)
    values = await services.auth.workspaces.in_project(caller, body.columns(), new=True)
    values["graph"] = await check_graph(services, caller, body.graph)
    async with services.db.begin() as c:
        row = await workflows.ROWS.existing(c, caller.tenant, workflow_id, to_change=True)
        row = await workflows.change(c, row, values, note=body.note, by=caller.key_id, expected=expected)
    return _tagged(response, row)


@router.delete(
    "/{workflow_id}",
    operation_id="deleteWorkflow",
    summary="Delete a workflow",
    status_code=204,
    responses=errors(400, 404, 409),
)
async def delete_workflow(workflow_id: str, services: WithServices, caller: Writer, if_match: IfMatch = None) -> None:
    """With all its versions."""
    expected = expected_version(if_match)
    async with services.db.begin() as c:
        row = await workflows.ROWS.existing(c, caller.tenant, workflow_id, to_change=True)
        await workflows.ROWS.delete(c, row, expected=expected)


@router.get(
    "/{workflow_id}/runs",
    operation_id="listRunsOfWorkflow",
    summary="Its runs, newest first",
    responses=errors(400, 404),
)
async def list_workflow_runs(
    workflow_id: str, services: WithServices, caller: Caller, limit: Limit = 50, cursor: Cursor = None
) -> Page[RunAnswer]:
    async with services.db.connect() as c:
        row = await workflows.ROWS.existing(c, caller.tenant, workflow_id)
    wanted = RunFilter(runnable_type=Runnable.WORKFLOW, runnable_id=row.id)
    found = await services.lists.runs(caller.tenant, wanted, after=place_of(cursor), limit=limit + 1)
    return page_of_runs(found, limit)


@router.get(
    "/{workflow_id}/versions",
    operation_id="listWorkflowVersions",
    summary="Its graphs, newest first",
    responses=errors(400, 404),
)
async def list_versions(
    workflow_id: str, services: WithServices, caller: Caller, limit: Limit = 50, cursor: NumberCursor = None
) -> Page[GraphVersionAnswer]:
    before = None if cursor is None else offset_of(cursor)
    async with services.db.connect() as c:
        row = await workflows.ROWS.existing(c, caller.tenant, workflow_id)
        found = await workflows.versions(c, row, before=before, limit=limit + 1)
    more = len(found) > limit
    return Page(
        items=[GraphVersionAnswer.of(version) for version in found[:limit]],
        next_cursor=str(found[limit - 1].number) if more else None,
    )


def _tagged(response: Response, row: Workflow) -> WorkflowAnswer:
    tag(response, row.version)
    return WorkflowAnswer.of(row)
