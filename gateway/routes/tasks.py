"""Tasks: named pieces of work, and the runs that are made for them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query, Response
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from gateway.agents.snapshots import agent_named
from gateway.auth import Principal
from gateway.catalogue.begun import begun
from gateway.catalogue.runs import RUNNABLE, run_of_task, submit_task
from gateway.deps import BEGINS_WORK, Caller, IdempotencyKey, Runner, Services, WithServices, Writer
from gateway.errors import invalid
from gateway.openapi import errors
from gateway.routes.answers import Page, RunAnswer, Timestamp, locate
from gateway.routes.bodies import Name, Parameters, TaskRunBody
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import Cursor, InProject, Limit, page_of, place_of
from gateway.routes.row_bodies import RowFields, RowPatch
from gateway.routes.runs import accepted, page_of_runs
from gateway.routes.versions import IfMatch, expected_version, tag
from shared.db import tasks, teams, workflows
from shared.db.history import RunFilter
from shared.db.rows import Place
from shared.db.tasks import Task
from shared.errors import AppError, ErrorCode, FieldError
from shared.threads.types import Run
from shared.types import JSON, Runnable, RunStatus

router = APIRouter(prefix="/tasks", tags=["tasks"], route_class=StrictJsonRoute)


class TaskFields(RowFields):
    runnable_id: Name | None = Field(
        default=None,
        validation_alias=AliasChoices("runnable_id", "runnableId"),
        description="An agent's id or a kind of agents (unset: the plain agent), a function's name, or the id of a "
        "team or workflow.",
    )
    input: Any = Field(
        default=None,
        validation_alias=AliasChoices("input", "input_variables"),
        description="A function's input; an agent's is `{task, context_data?}` or a text. Unset: the agent is given "
        "the description, or the name.",
    )
    parameters: Parameters | None = Field(default=None, description="Of its runs, where a run does not say otherwise.")


class TaskBody(TaskFields):
    name: Name
    runnable_type: Runnable = Field(
        default=Runnable.AGENT,
        strict=False,
        description="What does it. Tasks of teams and workflows are kept; their runs are refused (501) as yet.",
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "Weekly report", "description": "Sum up the week's changes.", "runnable_id": "coder"}]
        }
    )


class TaskPatch(TaskFields, RowPatch):
    name: Name | None = None
    runnable_type: Runnable | None = Field(default=None, strict=False)

    model_config = ConfigDict(json_schema_extra={"examples": [{"description": "Sum up the month's changes."}]})

    @classmethod
    def needed(cls) -> frozenset[str]:
        return frozenset({"name", "runnable_type"})


class TaskAnswer(BaseModel):
    id: str
    name: str
    description: str
    project_id: str | None
    runnable_type: Runnable
    runnable_id: str | None
    input: Any
    parameters: JSON
    metadata: JSON
    status: RunStatus | None = Field(
        description="Its last run's; pending where it has none, null where that was deleted."
    )
    last_run_id: str | None
    version: int
    created_at: Timestamp
    updated_at: Timestamp

    @classmethod
    def of(cls, task: Task, runs: Mapping[str, Run]) -> Self:
        """`runs`: by id, the last ones among them."""
        last = runs.get(task.last_run or "")
        same = ("id", "name", "description", "runnable_id", "input", "parameters", "metadata", "version")
        return cls(
            project_id=task.project,
            runnable_type=task.runnable,
            status=last.status if last else None if task.last_run else RunStatus.PENDING,
            last_run_id=task.last_run,
            **{name: getattr(task, name) for name in (*same, "created_at", "updated_at")},
        )


@router.get("", operation_id="listTasks", summary="List tasks, newest first", responses=errors(400))
async def list_tasks(
    services: WithServices,
    *,
    caller: Caller,
    limit: Limit = 50,
    cursor: Cursor = None,
    project_id: InProject = None,
    runnable_type: Annotated[Runnable | None, Query()] = None,
) -> Page[TaskAnswer]:
    after = place_of(cursor)
    only = {"project": project_id, "runnable_type": runnable_type}
    async with services.db.connect() as c:
        found = await tasks.ROWS.page(c, caller.tenant, only, after=after, limit=limit + 1)
    runs = await _last_runs(services, found)
    return page_of(found, limit, lambda task: TaskAnswer.of(task, runs), lambda task: Place(task.created_at, task.id))


@router.post(
    "",
    operation_id="createTask",
    summary="Make a task",
    status_code=201,
    responses=errors(400, 409, 413, 501),
)
async def create_task(
    body: TaskBody, response: Response, services: WithServices, caller: Writer, idempotency_key: IdempotencyKey = None
) -> TaskAnswer:
    """Work to be done by an agent, a function, a team or a workflow, as often as runs of it are made."""
    task_id, task = await begun(services, caller, tasks.ROWS.get, idempotency_key, ["task", body.model_dump()])
    locate(response, "tasks", task_id)
    return await _answer(services, task or await _made(services, caller, task_id, body), response)


async def _made(services: Services, caller: Principal, task_id: str, body: TaskBody) -> Task:
    """Raises AppError INVALID_REQUEST, NOT_FOUND, NOT_IMPLEMENTED."""
    now = datetime.now(UTC)
    columns = {"runnable_type": body.runnable_type.value, **_plain(body.columns())}
    given = await services.auth.workspaces.in_project(caller, columns, new=True)
    new = Task(id=task_id, workspace=caller.workspace, created_at=now, updated_at=now, **given)
    await _check(services, caller, new)
    async with services.db.begin() as c:
        return await tasks.ROWS.add(c, new)


@router.get("/{task_id}", operation_id="getTask", summary="A task", responses=errors(404))
async def get_task(task_id: str, response: Response, services: WithServices, caller: Caller) -> TaskAnswer:
    async with services.db.connect() as c:
        task = await tasks.ROWS.existing(c, caller.tenant, task_id)
    return await _answer(services, task, response)


@router.patch(
    "/{task_id}", operation_id="updateTask", summary="Change a task", responses=errors(400, 404, 409, 413, 501)
)
async def update_task(
    task_id: str,
    body: TaskPatch,
    *,
    response: Response,
    services: WithServices,
    caller: Writer,
    if_match: IfMatch = None,
) -> TaskAnswer:
    """What is not given stays. Runs that there are already go on as they began."""
    expected = expected_version(if_match, body.expected_version)
    values = await services.auth.workspaces.in_project(caller, _plain(body.columns()), new=False)
    async with services.db.connect() as c:
        before = await tasks.ROWS.existing(c, caller.tenant, task_id)
    await _check(services, caller, replace(before, **values))
    async with services.db.begin() as c:
        task = await tasks.ROWS.existing(c, caller.tenant, task_id, to_change=True)
        tasks.ROWS.check_version(task, before.version)  # what was checked is what is written
        task = await tasks.ROWS.change(c, task, values, expected=expected)
    return await _answer(services, task, response)


@router.delete(
    "/{task_id}", operation_id="deleteTask", summary="Delete a task", status_code=204, responses=errors(400, 404, 409)
)
async def delete_task(task_id: str, services: WithServices, caller: Writer, if_match: IfMatch = None) -> None:
    """Its runs stay."""
    expected = expected_version(if_match)
    async with services.db.begin() as c:
        task = await tasks.ROWS.existing(c, caller.tenant, task_id, to_change=True)
        await tasks.ROWS.delete(c, task, expected=expected)


@router.get(
    "/{task_id}/runs", operation_id="listRunsOfTask", summary="Its runs, newest first", responses=errors(400, 404)
)
async def list_task_runs(
    task_id: str, services: WithServices, caller: Caller, limit: Limit = 50, cursor: Cursor = None
) -> Page[RunAnswer]:
    async with services.db.connect() as c:
        task = await tasks.ROWS.existing(c, caller.tenant, task_id)
    wanted = RunFilter(task_id=task.id)
    found = await services.lists.runs(caller.tenant, wanted, after=place_of(cursor), limit=limit + 1)
    return page_of_runs(found, limit)


@router.post(
    "/{task_id}/runs",
    operation_id="runTask",
    dependencies=BEGINS_WORK,
    summary="Run a task",
    status_code=201,
    responses=errors(400, 404, 409, 413, 501),
)
async def run_task(
    task_id: str,
    *,
    response: Response,
    services: WithServices,
    caller: Runner,
    idempotency_key: IdempotencyKey = None,
    body: TaskRunBody | None = None,
) -> RunAnswer:
    """The same as `POST /api/runs` with a `task_id`. Follow it as any other run."""
    run = await submit_task(services, caller, task_id, body or TaskRunBody(), idempotency_key)
    return accepted(response, run)


async def _check(services: Services, caller: Principal, task: Task) -> None:
    """That it can be done by what it names. Raises AppError INVALID_REQUEST, NOT_IMPLEMENTED."""
    if task.runnable in RUNNABLE:
        run_of_task(task, TaskRunBody())
    try:
        await _find(services, caller, task)
    except AppError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise
        raise invalid([FieldError(place="body.runnable_id", detail=error.detail)]) from error


async def _find(services: Services, caller: Principal, task: Task) -> None:
    """What it names. Raises AppError NOT_FOUND, NOT_IMPLEMENTED."""
    if task.runnable is Runnable.AGENT and task.runnable_id:
        await agent_named(services, caller, task.runnable_id)
    async with services.db.connect() as c:
        if task.runnable is Runnable.TEAM:
            await teams.ROWS.existing(c, caller.tenant, task.runnable_id or "")
        if task.runnable is Runnable.WORKFLOW:
            await workflows.ROWS.existing(c, caller.tenant, task.runnable_id or "")


def _plain(columns: JSON) -> JSON:
    """As SQL has them."""
    return {name: str(value) if name == "runnable_type" else value for name, value in columns.items()}


async def _last_runs(services: Services, found: Sequence[Task]) -> dict[str, Run]:
    """By id."""
    return {run.id: run for run in await services.history.runs([task.last_run for task in found if task.last_run])}


async def _answer(services: Services, task: Task, response: Response) -> TaskAnswer:
    tag(response, task.version)
    return TaskAnswer.of(task, await _last_runs(services, [task]))
