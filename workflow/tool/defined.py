"""Tools that are data: HTTP calls and functions, with JSON Schemas that hold for what goes in and what comes out."""

import importlib
import itertools
import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import orjson

from shared.config.tools import FunctionCall, ToolDefinition, ToolsSettings
from shared.errors import AppError, ErrorCode
from shared.tool_rules import input_problems, schema_problems
from shared.types import JSON
from workflow.tool.base import Effect, ToolResult
from workflow.tool.json_schema import faults, plain_part
from workflow.tool.schema_tool import SchemaTool

OUTPUT = "output"


class DefinedTool(SchemaTool):
    """Subclasses write `run`, and end it with `result`."""

    trusted: ClassVar[bool] = True
    """Whether values are judged by all of its schemas; see SchemaTool."""

    def __init__(self, name: str, definition: ToolDefinition) -> None:
        effect = Effect(definition.effect)
        asks = effect is Effect.NONE
        super().__init__(
            name, definition.description, definition.input_schema, effect, asks_when_unknown=asks, trusted=self.trusted
        )
        self._timeout_seconds = definition.timeout_seconds
        output = definition.output_schema
        self._output = output if self.trusted or output is None else plain_part(output)

    @property
    def timeout_seconds(self) -> float | None:
        return self._timeout_seconds

    def result(self, output: Any, data: JSON) -> ToolResult:
        """Of an output that is JSON, where that fits its schema."""
        text = output if isinstance(output, str) else orjson.dumps(output, option=orjson.OPT_INDENT_2).decode()
        wrong = faults(self._output, output, (OUTPUT,)) if self._output else []
        if wrong:
            what = f"{self.name} was called and answered, but not as its output schema says:"
            return ToolResult.error("invalid_output", "\n".join([what, *wrong, "", text]), data)
        return ToolResult(True, text or "(no output)", data | {OUTPUT: output})


def check_schemas(name: str, definition: ToolDefinition) -> None:
    """Raises AppError INVALID_CONFIG."""
    output = schema_problems("output_schema", definition.output_schema or {})
    for problem in itertools.chain(input_problems(definition.input_schema), output):
        raise wrong(name, "{place} {detail}".format(**problem))


def function_of(call: FunctionCall, settings: ToolsSettings) -> Callable[..., Any]:
    """Raises ValueError, in words, for one that is not there, or not offered."""
    module_name, _, function_name = call.function.partition(":")
    if not settings.offers(module_name):
        raise ValueError(f"{module_name} is not among tools.function_modules: add it, if its functions may be tools")
    try:
        function: Any = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{call.function} cannot be had: {error}") from error
    if not callable(function):
        raise ValueError(f"{call.function} cannot be called")
    return function  # type: ignore[no-any-return]


def secrets_of(name: str, settings: ToolsSettings, used: list[str]) -> Mapping[str, str]:
    """The variables that a request uses. Raises AppError INVALID_CONFIG."""
    for variable in used:
        if variable not in settings.secrets:
            raise wrong(name, f"${{{variable}}} is not among tools.secrets: add it, if http tools may use it")
        if not os.environ.get(variable):
            raise wrong(name, f"${{{variable}}} is not set in the worker's environment")
    return {variable: os.environ[variable] for variable in used}


def wrong(name: str, detail: str) -> AppError:
    return AppError(ErrorCode.INVALID_CONFIG, f"tools.definitions.{name}: {detail}.")
