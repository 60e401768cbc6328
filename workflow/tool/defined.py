"""Tools that are data: HTTP calls and functions, with JSON Schemas that hold for what goes in and what comes out."""

import importlib
import os
from collections.abc import Mapping
from typing import Any

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from shared.config.tools import FunctionCall, ToolDefinition, ToolsSettings
from shared.errors import AppError, ErrorCode
from shared.types import JSON
from workflow.tool.base import Effect, ToolResult
from workflow.tool.json_schema import faults, lost_reference
from workflow.tool.schema_tool import SchemaTool

OUTPUT = "output"


class DefinedTool(SchemaTool):
    """Subclasses write `run`, and end it with `result`."""

    def __init__(self, name: str, definition: ToolDefinition) -> None:
        effect = Effect(definition.effect)
        asks = effect is Effect.NONE
        super().__init__(
            name, definition.description, definition.input_schema, effect, asks_when_unknown=asks, trusted=True
        )
        self._timeout_seconds = definition.timeout_seconds
        self._output = definition.output_schema

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


def checked_schemas(name: str, definition: ToolDefinition) -> None:
    """Raises AppError INVALID_CONFIG."""
    for field in ("input_schema", "output_schema"):
        schema = getattr(definition, field)
        if schema is None:
            continue
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise wrong(name, f"{field} is no JSON Schema: {error.message}") from error
        if (lost := lost_reference(schema)) is not None:
            raise wrong(name, f"{field} refers to {lost}, which is not in it: write it there, under $defs")
    if definition.input_schema.get("type", "object") != "object":
        raise wrong(name, 'input_schema has to be of an object: {"type": "object", "properties": {...}}')


def function_of(name: str, call: FunctionCall, settings: ToolsSettings) -> Any:
    """Raises AppError INVALID_CONFIG for one that is not there, or not allowed."""
    module_name, _, function_name = call.function.partition(":")
    if not any(f"{module_name}.".startswith(f"{allowed}.") for allowed in settings.function_modules):
        raise wrong(name, f"{module_name} is not among tools.function_modules: add it, if its functions may be tools")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise wrong(name, f"{call.function} cannot be had: {error}") from error
    if not callable(function):
        raise wrong(name, f"{call.function} cannot be called")
    return function


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
