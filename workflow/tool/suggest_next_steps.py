"""Offers the user what they may want to do next."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from shared.types import JSON
from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult
from workflow.tool.display import count_of


class SuggestionKind(StrEnum):
    RUN = "run"
    TEST = "test"
    EXTEND = "extend"
    DEPLOY = "deploy"
    FIX = "fix"


class Suggestion(Args):
    title: str = Field(min_length=1, max_length=120, description="Two to twelve words, as the user would say it.")
    prompt: str = Field(min_length=1, max_length=2_000, description="The task that you would be given then.")
    kind: SuggestionKind = Field(description="What sort of step it is.")


class SuggestArgs(Args):
    suggestions: list[Suggestion] = Field(min_length=1, max_length=4, description="The best one first.")


class SuggestNextStepsTool(Tool[SuggestArgs]):
    name: ClassVar[str] = "suggest_next_steps"
    effect: ClassVar[Effect] = Effect.REPEATABLE
    Args = SuggestArgs

    async def run(self, args: SuggestArgs, ctx: ToolContext) -> ToolResult:
        data: JSON = {"suggestions": [suggestion.model_dump(mode="json") for suggestion in args.suggestions]}
        content = f"The user sees {count_of(len(args.suggestions), 'suggestion')}. Now end with your answer."
        return ToolResult(ok=True, content=content, data=data, events=[("suggestions", data)])
