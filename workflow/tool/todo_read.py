"""Shows the agent's working list."""

from typing import ClassVar

from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult
from workflow.tool.planning import todo_lines


class TodoReadArgs(Args):
    pass


class TodoReadTool(Tool[TodoReadArgs]):
    name: ClassVar[str] = "todo_read"
    effect: ClassVar[Effect] = Effect.REPEATABLE
    Args = TodoReadArgs

    async def run(self, args: TodoReadArgs, ctx: ToolContext) -> ToolResult:
        todos = ctx.memory.todos
        content = "\n".join(todo_lines(todos)) or "There are no todos. todo_write makes a list."
        return ToolResult(ok=True, content=content, data={"todos": todos})
