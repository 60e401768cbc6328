"""A workspace's own tools: whether they may be, and what a run carries of those that it names."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from gateway.auth import Principal
from gateway.deps import Services
from gateway.errors import invalid
from shared.config.tools import FunctionCall
from shared.config.types import BUILT_IN_TOOLS
from shared.db import tools
from shared.db.tools import Tool
from shared.errors import AppError, ErrorCode, FieldError
from shared.tool_rules import BuiltIn, Call, call_of, workspace_problems
from shared.types import JSON
from shared.workers.tools import told_tools

OF_MCP = "mcp__"
CARRIED = ("id", "name", "version", "type", "description", "config", "input_schema", "output_schema", "effect")


@dataclass(frozen=True, slots=True)
class NamedTools:
    """`names`: as models call them. `rows`: of those that are the workspace's own, for a run's definition.

    `unknown`: what agents of the workspace are not given.
    """

    names: list[str]
    rows: list[JSON] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


async def tools_named(
    services: Services, caller: Principal, names: Sequence[str], *, settled: bool = False
) -> NamedTools:
    """By their names, or the workspace's own by their ids. SQL is asked only for what workers do not have.

    `settled`: the names are an agent's or its kind's, and it was judged before which of the workers' it is given.
    """
    workers = await _of_workers(services, names, settled=settled)
    others = [name for name in names if name not in workers]
    if not others:
        return NamedTools(list(names))
    async with services.db.connect() as c:
        rows = await tools.named(c, caller.tenant, others)
    usable = [row for row in rows if not services.settings.tools.disables(row.name)]
    found = {key: row for row in usable for key in (row.name, row.id)}
    return _resolved(names, workers, found)


def _resolved(names: Sequence[str], workers: set[str], found: Mapping[str, Tool]) -> NamedTools:
    calls = {name: _called(found[name]) if name in found else name for name in names}
    own = {found[name].id: found[name] for name in names if name in found and found[name].type != "builtin"}
    unknown = [name for name in names if name not in found and name not in workers]
    return NamedTools(list(dict.fromkeys(calls.values())), [carried(row) for row in own.values()], unknown)


async def _of_workers(services: Services, names: Sequence[str], *, settled: bool = False) -> set[str]:
    """Those of the names that agents are given by workers; while none has told, what the settings would give."""
    cards = {card.name for card in await told_tools(services.redis)}
    given = names if settled else [name for name in names if services.settings.tools.gives(name)]
    return {name for name in given if name in cards or not cards}


def _called(row: Tool) -> str:
    """What stands for a tool of the workers is that tool, for the rules of permissions too."""
    return str(row.config["tool"]) if row.type == "builtin" else row.name


def carried(row: Tool) -> JSON:
    """What a worker needs to make it."""
    return {name: getattr(row, name) for name in (*CARRIED, "timeout_seconds")}


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
    named = await tools_named(services, caller, names, settled=asked is None)
    if named.unknown:
        raise _unknown(named.unknown, by_agent=asked is None)
    if asked is not None:
        parameters = {**parameters, "tools": named.names}
    elif definition is not None:
        definition = {**definition, "parameters": {**own, "tools": named.names}}
    return ({**(definition or {}), "tools": named.rows} if named.rows else definition), parameters


def _unknown(names: list[str], *, by_agent: bool) -> AppError:
    if by_agent:
        detail = f"The agent names tools that it is not given any more: {', '.join(names)}. Change the agent."
        return AppError(ErrorCode.CONFLICT, detail)
    return invalid([FieldError(place="body.parameters.tools", detail=no_such_tools(names))])


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
    if isinstance(call, BuiltIn) and call.tool not in await _of_workers(services, [call.tool]):
        return [FieldError(place="config.tool", detail=no_such_tools([call.tool]))]
    return []


def _config_problems(error: ValidationError) -> Iterator[FieldError]:
    for item in error.errors(include_url=False, include_input=False):
        place = ".".join(["body.config", *(str(part) for part in item["loc"])])
        detail = "there is no such field" if item["type"] == "extra_forbidden" else item["msg"]
        yield FieldError(place=place, detail=detail.removeprefix("Value error, "))
