"""Runs that clients ask for, of something or of a task: from what is asked to what a worker is given."""

from collections.abc import Mapping
from typing import Any

from gateway.agents.snapshots import project_for, snapshot
from gateway.auth import Principal
from gateway.deps import Services
from gateway.errors import invalid, parsed
from gateway.routes.bodies import AgentInput, Parameters, RunBody, TaskRunBody
from shared.config import Settings
from shared.db import tasks
from shared.db.tasks import Task
from shared.errors import AppError, ErrorCode, FieldError
from shared.ids import new_run_id, new_thread_id, thread_of
from shared.threads.types import NewRun, NewThread, Run, input_of
from shared.types import JSON, Runnable

RUNNABLE = (Runnable.AGENT, Runnable.FUNCTION)


async def submit_run(
    services: Services, caller: Principal, body: RunBody, key: str | None, *, task: Task | None = None
) -> Run:
    """Raises AppError NOT_FOUND, CONFLICT, INVALID_REQUEST, NOT_IMPLEMENTED."""
    thread_id = body.thread_id or new_thread_id()
    thread = None if body.thread_id is None else await services.thread_of(caller, body.thread_id)
    if thread is not None and body.project_id not in (None, thread.project):
        raise AppError(ErrorCode.NOT_FOUND, f"Thread {thread.id} is not of project {(body.project_id or '')[:100]}.")
    kind = Runnable(body.runnable_type)
    of_agent = kind is Runnable.AGENT
    check_limits(services.settings, body.parameters, {"body.input.task": body.input["task"]} if of_agent else {})
    who = body.runnable_id or (thread.agent if thread and of_agent else None)
    request = ["run", body.model_dump(), *([task.id] if task else [])]
    run_id = await services.idempotency.reserve(caller.tenant, key, request, new_run_id(thread_id))
    parameters = body.parameters.model_dump(exclude_none=True)
    definition, parameters = await snapshot(services, caller, who if of_agent else None, parameters, run_id=run_id)
    if body.thread_id is None:
        asked = body.project_id or (task.project if task else None)
        project = await project_for(services, caller, asked, definition)
        await services.store.create_thread(NewThread(thread_of(run_id), caller.workspace, project=project))
    new = NewRun(
        run_id,
        caller.workspace,
        input=input_of(kind, body.input),
        parameters=parameters,
        runnable_type=kind,
        runnable_id=who,
        user_uuid=body.user_uuid or caller.user,
        key_id=caller.key_id,
        definition=definition,
        task_id=task.id if task else None,
    )
    submitted = await services.store.submit(new, queued={"input": body.input}, on_busy=body.on_busy)
    services.in_background(services.queue.ring(submitted.ring))
    return await services.run_of(caller, run_id)


async def submit_task(
    services: Services, caller: Principal, task_id: str, body: TaskRunBody | RunBody, key: str | None
) -> Run:
    """A run of the task, its last one from then on. Raises as `submit_run`."""
    async with services.db.connect() as c:
        task = await tasks.ROWS.existing(c, caller.tenant, task_id)
    run = await submit_run(services, caller, run_of_task(task, _of_task(body)), key, task=task)
    await began(services, run)
    return run


def check_limits(settings: Settings, parameters: Parameters, tasks: Mapping[str, str]) -> None:
    """Of what is asked of a run, what depends on the configuration. `tasks`: by their place in the request.

    Raises AppError INVALID_REQUEST.
    """
    most, wrong = settings.api.max_task_chars, list[FieldError]()
    for place, task in tasks.items():
        if len(task) > most:
            wrong.append(FieldError(place=place, detail=f"has {len(task)} characters, {most} are allowed"))
    if beyond := settings.sandbox.beyond(parameters.allowed_hosts or []):
        detail = f"{', '.join(beyond)}: sandboxes may not reach that (sandbox.network, sandbox.allowed_hosts)"
        wrong.append(FieldError(place="body.parameters.allowed_hosts", detail=detail))
    if wrong:
        raise invalid(wrong)


async def canceled(services: Services, run: Run) -> Run:
    """As it is once it is asked to end. One that has ended stays as it is."""
    if run.status.terminal:
        return run
    run, ring = await services.store.cancel(run.id, reason="canceled by request")
    services.in_background(services.queue.ring(ring))
    return run


async def began(services: Services, run: Run) -> None:
    """If it is a task's, the task is told."""
    if run.task_id is not None:
        async with services.db.begin() as c:
            await tasks.began(c, run.workspace, run.task_id, run.id)


def run_of_task(task: Task, body: TaskRunBody) -> RunBody:
    """What the body does not say is as the task says. Raises AppError INVALID_REQUEST, NOT_IMPLEMENTED."""
    if task.runnable not in RUNNABLE:
        detail = f"Runs of a {task.runnable} are not possible yet; task {task.id} is kept until they are."
        raise AppError(ErrorCode.NOT_IMPLEMENTED, detail)
    input = body.input if "input" in body.model_fields_set else task.input
    how = body.model_dump(exclude={"input", "parameters"})
    parameters = {**task.parameters, **body.parameters.model_dump(exclude_none=True)}
    what = {"runnable_type": task.runnable_type, "runnable_id": task.runnable_id, "parameters": parameters}
    return parsed(RunBody, {**how, **what, "input": _work(task, input)}, "body")


def input_of_fork(settings: Settings, run: Run, given: Any) -> JSON | None:
    """Another input than the run's, judged as that was; None: the same. Raises AppError INVALID_REQUEST."""
    if given is None:
        return None
    if run.runnable_type is Runnable.AGENT:
        asked = parsed(AgentInput, given, "body", "input")
        check_limits(settings, Parameters(), {"body.input.task": asked.task})
    return input_of(run.runnable_type, given)


def _of_task(body: TaskRunBody | RunBody) -> TaskRunBody:
    """What it says of a task's run. Raises AppError INVALID_REQUEST."""
    if isinstance(body, TaskRunBody):
        return body
    if wrong := sorted(body.model_fields_set & {"runnable_type", "runnable_id", "project_id"}):
        detail = "a task says itself what is run, and for which project: leave this out"
        raise invalid([FieldError(place=f"body.{name}", detail=detail) for name in wrong])
    return TaskRunBody.model_validate(body.model_dump(exclude_unset=True, exclude={"task_id"}))


def _work(task: Task, input: Any) -> Any:
    """Of an agent it is a text: what is said, or else the task's description or name."""
    if task.runnable is not Runnable.AGENT or isinstance(input, dict):
        return input
    return {"task": task.description or task.name if input is None else input}
