"""What a worker tells of its tools."""

from collections.abc import Callable, Iterable
from typing import Any

from shared.workers.tools import ToolCard, ToolType
from workflow.tool.base import Tool
from workflow.tool.function_tool import FunctionTool
from workflow.tool.http_tool import HttpTool
from workflow.tool.mcp import McpTool


def cards_of(tools: Iterable[Tool[Any]], enabled: Callable[[str], bool]) -> list[ToolCard]:
    return [
        ToolCard(tool.name, tool.description, type_of(tool), tool.effect, enabled(tool.name), tool.parameters)
        for tool in tools
    ]


def type_of(tool: Tool[Any]) -> ToolType:
    match tool:
        case McpTool():
            return "mcp"
        case HttpTool():
            return "http"
        case FunctionTool():
            return "function"
    return "builtin" if type(tool).__module__.startswith("workflow.tool.") else "custom"
