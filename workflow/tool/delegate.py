"""Has a part of the work done by an agent of its own, and reads what came of it."""

from typing import ClassVar

import orjson
from pydantic import Field

from shared.types import JSON
from workflow.tool.base import Args, ChildRun, Effect, Tool, ToolContext, ToolResult


class DelegateArgs(Args):
    description: str = Field(min_length=1, max_length=80, description="What it is about, in three to five words.")
    prompt: str = Field(
        min_length=1,
        description="The task, whole: the agent knows nothing of this conversation. Say what its answer must contain.",
    )
    agent: str | None = Field(
        None,
        max_length=200,
        description="Who does it: a kind of agent such as reviewer, or the id of one. Default: one like you.",
    )
    share_sandbox: bool = Field(True, description="Work in this sandbox and its files (default), or in an empty one.")
    tools: list[str] | None = Field(None, description="The tools it may use, of yours. Default: all of yours.")
    model: str | None = Field(None, description="Another model than yours, by its LiteLLM name.")
    max_turns: int | None = Field(None, ge=1, description="How many times it may think.")
    max_cost: float | None = Field(None, ge=0.0001, description="How many US dollars it may cost.")


class DelegateTool(Tool[DelegateArgs]):
    name: ClassVar[str] = "delegate"
    effect: ClassVar[Effect] = Effect.REPEATABLE  # of its end, which is recorded; the child is called once
    Args = DelegateArgs

    def child(self, args: DelegateArgs) -> ChildRun:
        given = args.model_dump(include={"tools", "model", "max_turns", "max_cost"}, exclude_none=True)
        return ChildRun(args.prompt, given, share_sandbox=args.share_sandbox, agent=args.agent)

    async def run(self, args: DelegateArgs, ctx: ToolContext) -> ToolResult:
        end = ctx.child
        assert end is not None
        data: JSON = {"run_id": end.run_id, "description": args.description}
        if end.error is not None:
            text = f"The agent for {args.description!r} gave no answer ({end.error['code']}): {end.error['detail']}"
            return ToolResult.error("delegate_failed", text, data)
        output = end.output if isinstance(end.output, str) else orjson.dumps(end.output).decode()
        return ToolResult(True, output or "(it ended without a word)", data)
