"""The tools by name: what the model is told of them, and what its calls mean."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from shared.errors import AppError, ErrorCode
from shared.types import JSON
from workflow.tool.arguments import parse_arguments
from workflow.tool.base import Args, Tool
from workflow.tool.bash import BashTool
from workflow.tool.bash_kill import BashKillTool
from workflow.tool.bash_output import BashOutputTool
from workflow.tool.edit_file import FileEditTool
from workflow.tool.glob import GlobTool
from workflow.tool.grep import GrepTool
from workflow.tool.job_plan import JobPlanTool
from workflow.tool.ls import LsTool
from workflow.tool.multi_edit import MultiEditTool
from workflow.tool.publish_event import PublishEventTool
from workflow.tool.read_file import FileReadTool
from workflow.tool.schema import function_schema
from workflow.tool.suggest_next_steps import SuggestNextStepsTool
from workflow.tool.todo_read import TodoReadTool
from workflow.tool.todo_write import TodoWriteTool
from workflow.tool.write_files import FilesCreationTool

PLAIN: tuple[type[Tool[Any]], ...] = (
    BashTool,
    BashOutputTool,
    BashKillTool,
    FileReadTool,
    FileEditTool,
    MultiEditTool,
    FilesCreationTool,
    LsTool,
    GrepTool,
    GlobTool,
    TodoReadTool,
    TodoWriteTool,
    SuggestNextStepsTool,
    PublishEventTool,
)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that its tool can be given as it is."""

    tool: Tool[Any]
    args: Args


class Registry:
    """A fixed set of tools."""

    def __init__(self, tools: Iterable[Tool[Any]]) -> None:
        self._tools = {tool.name: tool for tool in tools}

    @property
    def names(self) -> list[str]:
        return list(self._tools)

    def only(self, names: Sequence[str]) -> "Registry":
        """Some of these tools. Raises AppError naming what there is none of."""
        if unknown := [name for name in names if name not in self._tools]:
            raise AppError(
                ErrorCode.INVALID_REQUEST,
                f"No such tool: {', '.join(unknown)}. The tools are: {', '.join(self._tools)}.",
            )
        return Registry(tool for tool in self._tools.values() if tool.name in names)

    def asks_when_unknown(self, name: str) -> bool:
        return name in self._tools and self._tools[name].asks_when_unknown

    def schemas(self) -> list[JSON]:
        """As OpenAI's `tools`. Not the caller's to change."""
        return list(self._schemas.values())

    def parse(self, name: str, arguments: str) -> Call | str:
        """A model's call, or a text that tells the model which rule it breaks. Never raises."""
        tool = self._tools.get(name)
        if tool is None:
            return f"There is no tool named {name[:100]!r}. The tools are: {', '.join(self._tools)}."
        schema = self._schemas[name]["function"]["parameters"]
        args = parse_arguments(name, schema, tool.Args, arguments)
        return args if isinstance(args, str) else Call(tool, args)

    @cached_property
    def _schemas(self) -> dict[str, JSON]:
        tools = self._tools.values()
        return {tool.name: function_schema(tool.name, tool.description, tool.Args) for tool in tools}


def built_in_tools(*, plans_need_approval: bool = False) -> Registry:
    return Registry([*(tool() for tool in PLAIN), JobPlanTool(always_asks=plans_need_approval)])
