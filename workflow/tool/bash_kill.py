"""Ends a background task."""

from typing import ClassVar

from pydantic import Field

from workflow.sandbox.base import ExecStatus, SandboxRefused
from workflow.tool.background import describe, status_of, unknown_task
from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult


class BashKillArgs(Args):
    task_id: str = Field(description='The task, such as "bg_1".')


class BashKillTool(Tool[BashKillArgs]):
    name: ClassVar[str] = "bash_kill"
    effect: ClassVar[Effect] = Effect.IDEMPOTENT
    Args = BashKillArgs

    async def run(self, args: BashKillArgs, ctx: ToolContext) -> ToolResult:
        sandbox = await ctx.sandbox()
        try:
            task = await sandbox.kill_task(args.task_id, ctx.key, ctx.epoch)
        except SandboxRefused:
            return await unknown_task(sandbox, args.task_id)
        said = "Ended" if task.status is ExecStatus.KILLED else "It had already ended"
        return ToolResult(
            ok=True,
            content=f"{said}: {describe(task)}",
            data={"task_id": task.task_id, "status": status_of(task), "exit_code": task.exit_code},
            memory={"ended": [task.task_id]},
        )
