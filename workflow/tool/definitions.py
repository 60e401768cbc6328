"""Tools made of their definitions."""

from collections.abc import Iterator

from shared.config.tools import HttpCall, ToolDefinition, ToolsSettings
from shared.tool_rules import template_problems, variables_of
from workflow.tool.defined import DefinedTool, check_schemas, function_of, secrets_of, wrong
from workflow.tool.function_tool import FunctionTool
from workflow.tool.http_tool import HttpTool
from workflow.tool.threads import Threads


def defined_tools(settings: ToolsSettings) -> Iterator[DefinedTool]:
    """Raises AppError INVALID_CONFIG."""
    threads = Threads(settings.function_threads)
    for name, definition in settings.definitions.items():
        check_schemas(name, definition)
        yield _tool(name, definition, settings, threads)


def _tool(name: str, definition: ToolDefinition, settings: ToolsSettings, threads: Threads) -> DefinedTool:
    call = definition.config
    if isinstance(call, HttpCall):
        if definition.type != "http":
            raise wrong(name, "a tool of type function needs config.function = 'module:name'")
        for problem in template_problems(call, definition.input_schema):
            raise wrong(name, "{place} {detail}".format(**problem))
        return HttpTool(name, definition, call, secrets_of(name, settings, variables_of(call)))
    if definition.type != "function":
        raise wrong(name, "a tool of type http needs config.url")
    try:
        return FunctionTool(name, definition, function_of(call, settings), threads)
    except ValueError as error:
        raise wrong(name, str(error)) from error
