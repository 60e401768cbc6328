"""The tools by name: what the model is told of them, and what its calls mean."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import AppError, ErrorCode
from shared.types import JSON
from workflow.template.templates import Templates
from workflow.tool.base import Args, Tool
from workflow.tool.bash import BashTool
from workflow.tool.bash_kill import BashKillTool
from workflow.tool.bash_output import BashOutputTool
from workflow.tool.delegate import DelegateTool
from workflow.tool.edit_file import FileEditTool
from workflow.tool.expose_port import UrlExposeTool
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
from workflow.tool.use_template import UseTemplateTool
from workflow.tool.web_fetch import WebFetchTool
from workflow.tool.web_search import WebSearchTool
from workflow.tool.write_files import FilesCreationTool

log = logging.getLogger("trunkline.tool")

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
    UrlExposeTool,
    PublishEventTool,
    WebFetchTool,
    WebSearchTool,
    DelegateTool,
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
        self._schemas: dict[str, JSON] = {}

    @property
    def names(self) -> list[str]:
        return list(self._tools)

    @property
    def tools(self) -> list[Tool[Any]]:
        return list(self._tools.values())

    def only(self, names: Sequence[str]) -> "Registry":
        """Some of these tools. Raises AppError naming what there is none of."""
        if unknown := [name for name in names if name not in self._tools]:
            raise AppError(
                ErrorCode.INVALID_REQUEST,
                f"No such tool: {', '.join(unknown)}. The tools are: {', '.join(self._tools)}.",
            )
        return Registry(tool for tool in self._tools.values() if tool.name in names)

    def plus(self, tools: Iterable[Tool[Any]]) -> "Registry":
        """These tools and some more. Of two with one name the later is left out, with a warning."""
        known = dict(self._tools)
        for tool in tools:
            if known.setdefault(tool.name, tool) is not tool:
                log.warning("two tools are named %s: the later one is left out", tool.name)
        return Registry(known.values())

    def asks_when_unknown(self, name: str) -> bool:
        return name in self._tools and self._tools[name].asks_when_unknown

    def schemas(self) -> list[JSON]:
        """As OpenAI's `tools`. Not the caller's to change."""
        return [self._schema(tool) for tool in self._tools.values()]

    def parse(self, name: str, arguments: str) -> Call | str:
        """A model's call, or a text that tells the model which rule it breaks. Never raises."""
        tool = self._tools.get(name)
        if tool is None:
            return f"There is no tool named {name[:100]!r}. The tools are: {', '.join(self._tools)}."
        args = tool.parse(arguments)
        return args if isinstance(args, str) else Call(tool, args)

    def _schema(self, tool: Tool[Any]) -> JSON:
        """Made once, and again when its description changes (it may name the month)."""
        known = self._schemas.get(tool.name)
        if known is None or known["function"]["description"] != tool.description:
            known = self._schemas[tool.name] = function_schema(tool.name, tool.description, tool.parameters)
        return known


def built_in_tools(*, plans_need_approval: bool = False, templates: Templates | None = None) -> Registry:
    """`templates` None: those that come with Trunkline."""
    own: list[Tool[Any]] = [JobPlanTool(always_asks=plans_need_approval), UseTemplateTool(templates)]
    return Registry([*(tool() for tool in PLAIN), *own])
