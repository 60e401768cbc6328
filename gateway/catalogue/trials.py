"""Trying a workspace's tool: one call, by a worker, as a run of a function that is ours."""

import asyncio

from gateway.auth import Principal
from gateway.deps import Services
from shared.catalogue.tools import carried
from shared.db.tools import Tool
from shared.errors import AppError, ErrorCode
from shared.ids import new_run_id, new_thread_id, thread_of
from shared.threads.types import NewRun, NewThread, Run
from shared.types import JSON, TOOL_TRIAL, Runnable

LOOK_SECONDS = 0.1


async def trial_of(
    services: Services, caller: Principal, tool: Tool, arguments: JSON, key: str | None, *, wait_seconds: float
) -> Run:
    """The run, ended if that took no longer. Raises AppError CONFLICT, INVALID_REQUEST."""
    if tool.type == "builtin":
        detail = f"{tool.name} stands for {tool.config['tool']}, a tool of the workers: a run of an agent tries it."
        raise AppError(ErrorCode.CONFLICT, detail)
    request = ["trial", tool.id, arguments]
    run_id = await services.idempotency.reserve(caller.tenant, key, request, new_run_id(new_thread_id()))
    thread = NewThread(thread_of(run_id), caller.workspace, {"trial_of": tool.id}, project=tool.project)
    await services.store.create_thread(thread)
    new = NewRun(
        run_id,
        caller.workspace,
        {"input": {"tool": carried(tool), "arguments": arguments}},
        runnable_type=Runnable.FUNCTION,
        runnable_id=TOOL_TRIAL,
        user_uuid=caller.user,
        key_id=caller.key_id,
    )
    submitted = await services.store.submit(new, queued={"tool": tool.name})
    services.in_background(services.queue.ring(submitted.ring))
    return await _ended(services, caller, run_id, wait_seconds)


async def _ended(services: Services, caller: Principal, run_id: str, wait_seconds: float) -> Run:
    deadline = asyncio.get_running_loop().time() + wait_seconds
    run = await services.run_of(caller, run_id)
    while not run.status.terminal and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(LOOK_SECONDS)
        run = await services.run_of(caller, run_id)
    return run
