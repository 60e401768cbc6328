"""The arguments of a tool call, as a model wrote them: what they mean, or which rule they break."""

from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

from shared.types import JSON

A = TypeVar("A", bound=BaseModel)
Location = tuple[int | str, ...]
SHOWN_CHARS = 80


def parse_arguments(name: str, schema: JSON, model: type[A], text: str) -> A | str:
    """The arguments, or a text for the model. `schema` is their plain JSON Schema."""
    given = decode_arguments(name, schema, text)
    if isinstance(given, str):
        return given
    try:
        return model.model_validate(given)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        return wrong_arguments(name, [_fault(each, schema) for each in details])


def decode_arguments(name: str, schema: JSON, text: str) -> JSON | str:
    """The fields that are given, or a text for the model."""
    try:
        fields = from_json(text) if text.strip() else {}
    except ValueError as error:
        return f"The arguments of {name} are not valid JSON: {error}. Call {name} again with one JSON object."
    if not isinstance(fields, dict):
        kind = "null" if fields is None else f"{_kind(fields)}: {short(fields)}"
        return f"The arguments of {name} must be one JSON object with {_fields(schema)}, but were {kind}"
    # Models give null for "not set"; where a field is required, its own rule will say that null is wrong.
    return {key: value for key, value in fields.items() if value is not None or key in schema["required"]}


def wrong_arguments(name: str, faults: list[str]) -> str:
    return "\n".join([f"The arguments of {name} are wrong, so it was not called:", *faults])


def missing_field(location: Location) -> str:
    return f"- {_place(location)} is missing: it is required"


def unknown_field(location: Location, holder: JSON) -> str:
    """`holder` is the schema of the object that it stands in."""
    near = get_close_matches(str(location[-1]), holder["properties"], n=1)
    guess = f" Did you mean {near[0]}?" if near else ""
    return f"- {_place(location)} is not a field of it. Allowed: {_fields(holder)}.{guess}"


def broken_rule(location: Location, rule: str, value: Any) -> str:
    """`rule` says what the value should be."""
    return f"- {_place(location)}: {rule}; it was {short(value)}"


def _fault(details: ErrorDetails, schema: JSON) -> str:
    location = details["loc"]
    match details["type"]:
        case "missing":
            return missing_field(location)
        case "extra_forbidden":
            return unknown_field(location, _node(schema, location[:-1]))
        case _:
            rule = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
            return broken_rule(location, rule, details["input"])


def _node(schema: JSON, location: Location) -> JSON:
    for part in location:
        schema = schema["items"] if isinstance(part, int) else schema["properties"][part]
    return schema


def _place(location: Location) -> str:
    """`files[0].file_path`"""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return _cut("".join(parts).removeprefix(".")) or "the object"


def _fields(schema: JSON) -> str:
    required = schema["required"]
    return ", ".join(f"{name} (required)" if name in required else name for name in schema["properties"])


def _kind(value: Any) -> str:
    kinds = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "an array"}
    return kinds.get(type(value), "something else")


def short(value: Any) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"
