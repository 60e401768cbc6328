"""All tools that a worker has: the built-in ones, those of the user's modules and packages, and those that are data.

What is wrong with one stops the worker's start, in words that say what to change.
"""

import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from shared.config import Settings
from shared.errors import AppError, ErrorCode
from workflow.template.templates import load_templates
from workflow.tool.base import Effect, Tool
from workflow.tool.definitions import defined_tools
from workflow.tool.registry import Registry, built_in_tools

GROUP = "trunkline.tools"
NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}")
DESCRIPTION_CHARS = 1_024
"""OpenAI takes no longer one."""


def all_tools(settings: Settings) -> Registry:
    """Those that agents are given. Raises AppError INVALID_CONFIG."""
    return Registry(tool for tool in known_tools(settings) if settings.tools.gives(tool.name))


def known_tools(settings: Settings) -> list[Tool[Any]]:
    """Whether agents are given them or not. Raises AppError INVALID_CONFIG."""
    tools, templates = settings.tools, load_templates(settings.templates.folder)
    found = [
        *built_in_tools(plans_need_approval=tools.plans_need_approval, templates=templates).tools,
        *defined_tools(tools),
        *(_made(kind) for kind in dict.fromkeys([*_of_modules(tools.modules), *_of_packages()])),
    ]
    known: dict[str, Tool[Any]] = {}
    for tool in found:
        check_tool(tool)
        if (other := known.setdefault(tool.name, tool)) is not tool:
            raise _wrong(f"There are two tools named {tool.name!r}: {_place(other)} and {_place(tool)}. Rename one.")
    missing = [name for name in tools.enabled if NAME.fullmatch(name) and name not in {*known, "default"}]
    if missing:
        raise _wrong(
            f"tools.enabled names {', '.join(missing)}, and there is no such tool. There are: {', '.join(known)}. "
            "Tools of your own are found in the modules that tools.modules names."
        )
    return list(known.values())


def check_tool(tool: Tool[Any]) -> None:
    """Whether models can be told of it. Raises AppError INVALID_CONFIG with what to change."""
    name, place = tool.name, _place(tool)
    if not NAME.fullmatch(str(name)):
        raise _wrong(f"{place} has the name {name!r}. Use letters, digits and _, at most 64, as in 'word_count'.")
    if not isinstance(tool.effect, Effect):
        raise _wrong(f"{place} has the effect {tool.effect!r}. Give it one of Effect: REPEATABLE, IDEMPOTENT, NONE.")
    if not inspect.iscoroutinefunction(tool.run):
        raise _wrong(f"{place} has a run that is not async. Write: async def run(self, args, ctx) -> ToolResult.")
    try:
        description = tool.description
    except OSError as error:
        raise _wrong(
            f"{place} has no description: write what it does, for the model, into {error.filename}."
        ) from error
    if not 0 < len(description) <= DESCRIPTION_CHARS:
        raise _wrong(
            f"{place} has a description of {len(description):,} characters: write at least one and at most "
            f"{DESCRIPTION_CHARS:,}."
        )
    try:
        _ = tool.parameters
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _wrong(
            f"{place} has arguments that not every model can be told of: {error}. Make them fields of a class derived "
            "from Args, of str, int, float, bool, Literal, such classes, lists of these, or any of them | None."
        ) from error


def _of_modules(names: Iterable[str]) -> Iterator[type[Tool[Any]]]:
    for name in names:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise _wrong(
                f"tools.modules names {name!r}, which cannot be imported: {error}. Is its folder in PYTHONPATH, or its "
                "package installed?"
            ) from error
        kinds = _kinds(module)
        whole = [kind for kind in kinds if not inspect.isabstract(kind)]
        if not whole:
            lacks = "".join(f" {kind.__name__} lacks {', '.join(sorted(kind.__abstractmethods__))}." for kind in kinds)
            raise _wrong(f"tools.modules names {name!r}, which has no class derived from Tool that is complete.{lacks}")
        yield from whole


def _kinds(module: ModuleType) -> list[type[Tool[Any]]]:
    """Its tool classes, and those that it takes from modules below it."""
    own = f"{module.__name__}."
    classes = [kind for kind in vars(module).values() if inspect.isclass(kind) and issubclass(kind, Tool)]
    return [kind for kind in classes if f"{kind.__module__}.".startswith(own)]


def _of_packages() -> Iterator[type[Tool[Any]]]:
    """Of installed packages: an entry point is a class or a module."""
    for entry in entry_points(group=GROUP):
        place = f"The entry point {entry.name!r} of {GROUP} ({entry.value})"
        try:
            found = entry.load()
        except (ImportError, AttributeError) as error:
            raise _wrong(f"{place} cannot be loaded: {error}.") from error
        if isinstance(found, ModuleType):
            yield from (kind for kind in _kinds(found) if not inspect.isabstract(kind))
        elif inspect.isclass(found) and issubclass(found, Tool):
            yield found
        else:
            raise _wrong(f"{place} is neither a class derived from Tool nor a module.")


def _made(kind: type[Tool[Any]]) -> Tool[Any]:
    try:
        return kind()
    except TypeError as error:
        raise _wrong(f"{kind.__module__}.{kind.__qualname__} cannot be made without arguments: {error}.") from error


def _place(tool: Tool[Any]) -> str:
    return f"{type(tool).__module__}.{type(tool).__qualname__}"


def _wrong(detail: str) -> AppError:
    return AppError(ErrorCode.INVALID_CONFIG, detail)
