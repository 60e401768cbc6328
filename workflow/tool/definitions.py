"""Tools made of their definitions."""

from collections.abc import Iterator

from shared.config.tools import HttpCall, ToolDefinition, ToolsSettings
from workflow.tool.defined import DefinedTool, checked_schemas, function_of, secrets_of, wrong
from workflow.tool.function_tool import FunctionTool
from workflow.tool.http_tool import HttpTool, fields_of, movable_host, variables_of
from workflow.tool.threads import Threads


def defined_tools(settings: ToolsSettings) -> Iterator[DefinedTool]:
    """Raises AppError INVALID_CONFIG."""
    threads = Threads(settings.function_threads)
    for name, definition in settings.definitions.items():
        checked_schemas(name, definition)
        yield _tool(name, definition, settings, threads)


def _tool(name: str, definition: ToolDefinition, settings: ToolsSettings, threads: Threads) -> DefinedTool:
    call = definition.config
    if isinstance(call, HttpCall):
        if definition.type != "http":
            raise wrong(name, "a tool of type function needs config.function = 'module:name'")
        _check_templates(name, definition, call)
        return HttpTool(name, definition, call, secrets_of(name, settings, variables_of(call)))
    if definition.type != "function":
        raise wrong(name, "a tool of type http needs config.url")
    return FunctionTool(name, definition, function_of(name, call, settings), threads)


def _check_templates(name: str, definition: ToolDefinition, call: HttpCall) -> None:
    if movable_host(call):
        raise wrong(name, "the host of config.url is not for arguments to choose: write it out")
    if unknown := fields_of(call) - definition.input_schema.get("properties", {}).keys():
        raise wrong(name, f"config names {{{min(unknown)}}}, which is no property of input_schema")
