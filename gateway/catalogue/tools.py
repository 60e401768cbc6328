"""A workspace's own tools: whether they may be, and what a run carries of those that it names."""

from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from gateway.auth import Principal
from gateway.deps import Services
from gateway.errors import invalid
from shared.catalogue.agents import with_named
from shared.catalogue.tools import NamedTools, ToolCatalogue
from shared.config.tools import FunctionCall
from shared.config.types import BUILT_IN_TOOLS
from shared.db.tools import Tool
from shared.errors import AppError, ErrorCode, FieldError
from shared.tool_rules import BuiltIn, Call, call_of, workspace_problems
from shared.types import JSON
from shared.workers.tools import told_tools

OF_MCP = "mcp__"


async def tools_named(services: Services, caller: Principal, names: Sequence[str]) -> NamedTools:
    """As `ToolCatalogue.named`."""
    return await _catalogue(services).named(caller.tenant, names)


def _catalogue(services: Services) -> ToolCatalogue:
    return ToolCatalogue(services.settings.tools, services.redis, services.db)


async def with_tools(
    services: Services, caller: Principal, definition: JSON | None, parameters: JSON
) -> tuple[JSON | None, JSON]:
    """A run's definition and parameters, with the workspace's tools that they name.

    Raises AppError INVALID_REQUEST for one that is not there, CONFLICT where the agent names it.
    """
    asked, own = parameters.get("tools"), (definition or {}).get("parameters", {})
    names = own.get("tools") if asked is None else asked
    if not names:
        return definition, parameters
    if asked is None:
        assert definition is not None
        named = await _catalogue(services).named(caller.tenant, names, settled=True)
        return with_named(definition, named), parameters
    of_servers = [name for name in asked if _of_own_server(name, definition)]
    named = await tools_named(services, caller, [name for name in asked if name not in of_servers])
    if named.unknown:
        raise invalid([FieldError(place="body.parameters.tools", detail=no_such_tools(named.unknown))])
    parameters = {**parameters, "tools": [*named.names, *of_servers]}
    return ({**(definition or {}), "tools": named.rows} if named.rows else definition), parameters


def _of_own_server(name: str, definition: JSON | None) -> bool:
    """Whether it is, or may be, a tool of an MCP server of the agent's own."""
    return any(name.startswith(f"{OF_MCP}{server}__") for server in (definition or {}).get("mcp_servers", ()))


def no_such_tools(names: Sequence[str]) -> str:
    return f"{', '.join(sorted(set(names)))}: no tool that agents are given (GET /api/tools)"


async def check_tool(services: Services, tool: Tool) -> None:
    """That a workspace may have it. Raises AppError INVALID_REQUEST, CONFLICT."""
    settings = services.settings.tools
    cards = {card.name for card in await told_tools(services.redis)}
    if tool.name in {*cards, *BUILT_IN_TOOLS, *settings.definitions} or tool.name.startswith(OF_MCP):
        detail = f"{tool.name} is, or may be, the name of a tool of the workers. Take another name."
        raise AppError(ErrorCode.CONFLICT, detail)
    try:
        call = call_of(tool.type, tool.config)
    except ValidationError as error:
        raise invalid([*_config_problems(error)]) from error
    problems = [*workspace_problems(call, tool.input_schema, tool.output_schema)]
    problems += await _not_offered(services, call)
    if problems:
        raise invalid([FieldError(place=f"body.{each['place']}", detail=each["detail"]) for each in problems])


async def _not_offered(services: Services, call: Call) -> list[FieldError]:
    """What the installation does not let workspaces use."""
    settings = services.settings.tools
    if isinstance(call, FunctionCall) and not settings.offers(call.function.partition(":")[0]):
        detail = "is of no module whose functions may be tools (tools.function_modules)"
        return [FieldError(place="config.function", detail=detail)]
    if isinstance(call, BuiltIn) and call.tool not in await _catalogue(services).of_workers([call.tool]):
        return [FieldError(place="config.tool", detail=no_such_tools([call.tool]))]
    return []


def _config_problems(error: ValidationError) -> Iterator[FieldError]:
    for item in error.errors(include_url=False, include_input=False):
        place = ".".join(["body.config", *(str(part) for part in item["loc"])])
        detail = "there is no such field" if item["type"] == "extra_forbidden" else item["msg"]
        yield FieldError(place=place, detail=detail.removeprefix("Value error, "))
