"""What holds for tools that are data, whoever describes them: the settings, or users of a workspace.

Of users nothing is trusted: their tools name no secret, and their schemas keep to what can be judged in bounded time.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal, TypeVar

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import Field
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from shared.config.tools import FunctionCall, HttpCall, ToolName
from shared.config.types import HttpUrl, Section, Text
from shared.errors import FieldError
from shared.secrets import VARIABLE
from shared.types import JSON

FIELD = re.compile(r"(?<!\$)\{(\w+)\}")
HOST = re.compile(r"^(https?://[^/?#]*).*", re.DOTALL)
DEPTH = 12
NODES = 1_000
JUDGED = frozenset(
    {
        *("type", "enum", "const", "anyOf", "oneOf", "properties", "required", "additionalProperties", "items"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
        *("minLength", "maxLength", "minItems", "maxItems", "$ref", "$defs", "definitions"),
    }
)
"""Keywords of schemas that anybody wrote by which values are judged."""
REMARKS = frozenset({"title", "description", "default", "examples", "format", "deprecated", "$schema", "$comment"})
"""Those that are no rules."""

WorkspaceToolType = Literal["http", "function", "builtin", "mcp"]


class McpCall(Section):
    """A tool of an MCP server, which is asked over streamable HTTP."""

    url: HttpUrl
    tool: Text
    """As the server names it."""
    headers: dict[str, str] = Field(default={})


class BuiltIn(Section):
    """Another name for a tool of the workers."""

    tool: ToolName


T = TypeVar("T")
Call = HttpCall | FunctionCall | McpCall | BuiltIn
CALLS: dict[WorkspaceToolType, type[Call]] = {
    "http": HttpCall,
    "function": FunctionCall,
    "builtin": BuiltIn,
    "mcp": McpCall,
}


def call_of(kind: WorkspaceToolType, config: JSON) -> Call:
    """What a tool of this type does, by its config. Raises pydantic.ValidationError."""
    return CALLS[kind].model_validate(config)


def variables_of(call: Section) -> list[str]:
    """The variables that its templates name."""
    return sorted(set(VARIABLE.findall(orjson.dumps(call.model_dump()).decode())))


def fields_of(call: HttpCall) -> set[str]:
    """The arguments that its templates name."""
    return set(FIELD.findall(orjson.dumps(call.model_dump()).decode()))


def schema_problems(field: str, schema: JSON) -> Iterator[FieldError]:
    """`field`: where it stands."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        yield FieldError(place=field, detail=f"is no JSON Schema: {error.message}")
        return
    if (lost := _lost_reference(schema)) is not None:
        yield FieldError(place=field, detail=f"refers to {lost}, which is not in it: write it there, under $defs")


def input_problems(schema: JSON) -> Iterator[FieldError]:
    yield from schema_problems("input_schema", schema)
    if schema.get("type", "object") != "object":
        detail = 'has to be of an object: {"type": "object", "properties": {...}}'
        yield FieldError(place="input_schema", detail=detail)


def template_problems(call: HttpCall, input_schema: JSON) -> Iterator[FieldError]:
    if FIELD.search(HOST.sub(r"\1", call.url)):
        yield FieldError(place="config.url", detail="has a host that arguments choose: write it out")
    if unknown := fields_of(call) - input_schema.get("properties", {}).keys():
        yield FieldError(place="config", detail=f"names {{{min(unknown)}}}, which is no property of input_schema")


def workspace_problems(call: Call, input_schema: JSON, output_schema: JSON | None) -> list[FieldError]:
    """All that keeps it from being a tool of a workspace."""
    schemas = {"input_schema": input_schema, "output_schema": output_schema or {}}
    # First, because nothing else bounds the work of judging what comes after.
    if unjudged := [problem for field, schema in schemas.items() for problem in _unjudged(field, schema)]:
        return unjudged
    found = [*input_problems(input_schema), *schema_problems("output_schema", schemas["output_schema"])]
    if named := variables_of(call):
        detail = f"names ${{{named[0]}}}: only tools of the installation's configuration may use its secrets"
        found.append(FieldError(place="config", detail=detail))
    if isinstance(call, HttpCall) and not found:
        found += template_problems(call, input_schema)
    return found


def _unjudged(field: str, schema: JSON) -> list[FieldError]:
    wrong: list[FieldError] = []
    for number, (place, node, depth) in enumerate(_nodes(field, schema, 0)):
        if number >= NODES or depth > DEPTH:
            return [FieldError(place=field, detail=f"is larger than {NODES} parts, or nested deeper than {DEPTH}")]
        if not isinstance(node, dict):
            wrong.append(FieldError(place=place, detail="should be a JSON object"))
        elif unknown := node.keys() - JUDGED - REMARKS:
            detail = f"{min(unknown)} is no rule by which tools of a workspace are judged"
            wrong.append(FieldError(place=place, detail=detail))
    return wrong


def _nodes(place: str, node: Any, depth: int) -> Iterator[tuple[str, Any, int]]:
    """A schema and all that are in it. Ends one below what is too deep."""
    yield place, node, depth
    if depth > DEPTH or not isinstance(node, dict):
        return
    for keyword in ("properties", "$defs", "definitions"):
        for name, inner in _if(dict, node.get(keyword)).items():
            yield from _nodes(f"{place}.{keyword}.{name}", inner, depth + 1)
    for keyword in ("anyOf", "oneOf"):
        for number, inner in enumerate(_if(list, node.get(keyword))):
            yield from _nodes(f"{place}.{keyword}[{number}]", inner, depth + 1)
    if "items" in node:
        yield from _nodes(f"{place}.items", node["items"], depth + 1)
    if not isinstance(node.get("additionalProperties", False), bool):
        yield f"{place}.additionalProperties", None, depth + 1


def _if(kind: type[T], value: Any) -> T:
    """What is none is told of by the check of the schema as a whole."""
    return value if isinstance(value, kind) else kind()


def _lost_reference(schema: JSON) -> str | None:
    """A reference to what is not in the schema itself."""
    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            return reference
    return None


def _references(node: Any) -> Iterator[str]:
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict) and isinstance(node.get("$ref"), str):
        yield node["$ref"]
    for each in inner:
        yield from _references(each)
