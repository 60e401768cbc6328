"""A Python function as a tool."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import orjson

from shared.config.tools import ToolDefinition
from workflow.tool.base import ToolContext, ToolResult
from workflow.tool.defined import DefinedTool
from workflow.tool.schema_tool import GivenArgs


class FunctionTool(DefinedTool):
    """It gets its arguments by name, and gives back JSON.

    A function that is not async runs in a thread: at its time limit nobody waits for it any more, but it goes on.
    """

    def __init__(self, name: str, definition: ToolDefinition, function: Callable[..., Any]) -> None:
        super().__init__(name, definition)
        self._function = function

    async def run(self, args: GivenArgs, ctx: ToolContext) -> ToolResult:
        if inspect.iscoroutinefunction(self._function):
            output = await self._function(**args.fields)
        else:
            output = await asyncio.to_thread(self._function, **args.fields)
        return self.result(orjson.loads(orjson.dumps(output)), {})
