"""Tools of a user's, for whole stacks: `TRUNKLINE__TOOLS__MODULES=tests.e2e.own_tools`."""

from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult


class CountArgs(Args):
    text: str


class CountTool(Tool[CountArgs]):
    name = "count"
    effect = Effect.REPEATABLE
    description = "Counts words."
    Args = CountArgs

    async def run(self, args: CountArgs, ctx: ToolContext) -> ToolResult:
        return ToolResult(True, f"{len(args.text.split())} words")
