"""Keeps the agent's working list."""

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar

from pydantic import ConfigDict, Field

from shared.types import JSON
from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult
from workflow.tool.display import count_of
from workflow.tool.planning import todo_lines, with_ids


class TodoStatus(StrEnum):
    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class Todo(Args):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    id: str | None = Field(None, max_length=50, description="Its id in the list. Default: a number.")
    content: str = Field(min_length=1, max_length=500, description='What is to be done: "Run the tests".')
    active_form: str | None = Field(
        None, max_length=500, description='How to call it while it is done: "Running the tests".'
    )
    status: TodoStatus = Field(TodoStatus.PENDING, description="pending (default); in_progress for at most one.")


class TodoWriteArgs(Args):
    todos: list[Todo] = Field(max_length=100, description="The whole list: it replaces the one before.")


class TodoWriteTool(Tool[TodoWriteArgs]):
    name: ClassVar[str] = "todo_write"
    effect: ClassVar[Effect] = Effect.IDEMPOTENT
    Args = TodoWriteArgs

    async def run(self, args: TodoWriteArgs, ctx: ToolContext) -> ToolResult:
        given = with_ids([todo.model_dump(mode="json") for todo in args.todos], ctx.memory.todos, "content")
        todos, demoted = _one_in_progress(given, ctx.memory.todos)
        lines = [_counts(todos), *todo_lines(todos)]
        if demoted:
            names = ", ".join(todo["id"] for todo in demoted)
            lines.append(f"Only one can be in progress, so these went back to pending: {names}.")
        data: JSON = {"todos": todos, "demoted": [todo["id"] for todo in demoted]}
        return ToolResult(
            ok=True, content="\n".join(lines), data=data, events=[("todo", data)], memory={"todos": todos}
        )


def _one_in_progress(todos: Sequence[JSON], before: Sequence[JSON]) -> tuple[list[JSON], list[JSON]]:
    """The list with one in progress, the one begun last, and those that are so no more.

    It is not refused for having more: a model that is goes on sending it.
    """
    old = {todo["id"] for todo in before if todo["status"] == TodoStatus.IN_PROGRESS}
    active = [todo for todo in todos if todo["status"] == TodoStatus.IN_PROGRESS]
    kept = next((todo for todo in active if todo["id"] not in old), active[0] if active else None)
    demoted = [todo for todo in active if todo is not kept]
    return [{**todo, "status": TodoStatus.PENDING.value} if todo in demoted else todo for todo in todos], demoted


def _counts(todos: Sequence[JSON]) -> str:
    if not todos:
        return "The list is empty now."
    counts = Counter(todo["status"] for todo in todos)
    told = ", ".join(f"{counts[status]} {status.replace('_', ' ')}" for status in TodoStatus if counts[status])
    return f"{count_of(len(todos), 'todo')} ({told}):"
