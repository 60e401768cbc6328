"""What the model is told of background tasks."""

from workflow.sandbox.base import ExecStatus, Sandbox, Task
from workflow.tool.base import ToolResult

SHOWN_COMMAND_CHARS = 60


def status_of(task: Task) -> str:
    """`running`, `completed`, `failed` or `killed`."""
    if task.status is ExecStatus.EXITED:
        return "completed" if task.exit_code == 0 else "failed"
    return str(task.status)


def describe(task: Task) -> str:
    """`bg_1 failed, exit code 2, 3.1 s`"""
    parts = [f"{task.task_id} {status_of(task)}"]
    if task.killed_by:
        parts.append(task.killed_by)
    if task.exit_code is not None:
        parts.append(f"exit code {task.exit_code}")
    return ", ".join([*parts, f"{task.duration_ms / 1000:.1f} s"])


def short_command(task: Task) -> str:
    line = " ".join(task.command.split())
    return line if len(line) <= SHOWN_COMMAND_CHARS else line[:SHOWN_COMMAND_CHARS] + "…"


async def unknown_task(sandbox: Sandbox, task_id: str) -> ToolResult:
    known = [f"- {describe(task)}: {short_command(task)}" for task in await sandbox.tasks()]
    state = (
        "\n".join(["The tasks are:", *known]) if known else "There are none: bash with run_in_background starts one."
    )
    return ToolResult.error("unknown_task", f"There is no background task {task_id!r}. {state}")
