"""A Python function as a tool."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from shared.config.tools import ToolDefinition
from shared.types import JSON
from workflow.tool.base import ToolContext, ToolResult
from workflow.tool.defined import DefinedTool
from workflow.tool.schema_tool import GivenArgs
from workflow.tool.threads import Threads

EFFECT_KEY = "effect_key"
BUSY = (
    "{name} was not called: {number} functions are under way in this worker, and it takes no more. Call it again "
    "later, or go on without it and say so."
)


class FunctionTool(DefinedTool):
    """It gets its arguments by name, and gives back JSON.

    A parameter `effect_key` that the input schema does not have is given the key of the call's effect. A function that
    is not async runs in one of `threads`: at its time limit nobody waits for it any more, but it goes on.
    """

    def __init__(self, name: str, definition: ToolDefinition, function: Callable[..., Any], threads: Threads) -> None:
        super().__init__(name, definition)
        self._function = function
        self._threads = threads
        declared = definition.input_schema.get("properties", {})
        self._takes_key = EFFECT_KEY not in declared and EFFECT_KEY in _parameters(function)

    async def run(self, args: GivenArgs, ctx: ToolContext) -> ToolResult:
        key: JSON = {EFFECT_KEY: ctx.effect_key} if self._takes_key else {}
        call = partial(self._function, **args.fields | key)
        work = call() if inspect.iscoroutinefunction(self._function) else self._threads.begin(call)
        if work is None:
            return ToolResult.error("tool_busy", BUSY.format(name=self.name, number=self._threads.number))
        return self.result(orjson.loads(orjson.dumps(await work)), {})


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:  # some built-in ones have none
        return []
