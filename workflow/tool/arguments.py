"""The arguments of a tool call, as a model wrote them: what they mean, or which rule they break."""

from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from shared.types import JSON
from workflow.tool.base import Args

A = TypeVar("A", bound=Args)
SHOWN_CHARS = 80


def parse_arguments(name: str, schema: JSON, model: type[A], text: str) -> A | str:
    """The arguments, or a text for the model. `schema` is their plain JSON Schema."""
    try:
        fields = from_json(text) if text.strip() else {}
    except ValueError as error:
        return f"The arguments of {name} are not valid JSON: {error}. Call {name} again with one JSON object."
    if not isinstance(fields, dict):
        kind = "null" if fields is None else f"{_kind(fields)}: {_short(fields)}"
        return f"The arguments of {name} must be one JSON object with {_fields(schema)}, but were {kind}"
    # Models give null for "not set"; where a field is required, its own rule will say that null is wrong.
    given = {key: value for key, value in fields.items() if value is not None or key in schema["required"]}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        faults = [_fault(details, schema) for details in error.errors(include_url=False, include_context=False)]
        return "\n".join([f"The arguments of {name} are wrong, so it was not called:", *faults])


def _fault(details: ErrorDetails, schema: JSON) -> str:
    place = _place(details["loc"])
    match details["type"]:
        case "missing":
            return f"- {place} is missing: it is required"
        case "extra_forbidden":
            holder = _node(schema, details["loc"][:-1])
            near = get_close_matches(str(details["loc"][-1]), holder["properties"], n=1)
            guess = f" Did you mean {near[0]}?" if near else ""
            return f"- {place} is not a field of it. Allowed: {_fields(holder)}.{guess}"
        case _:
            rule = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
            return f"- {place}: {rule}; it was {_short(details['input'])}"


def _node(schema: JSON, location: tuple[int | str, ...]) -> JSON:
    for part in location:
        schema = schema["items"] if isinstance(part, int) else schema["properties"][part]
    return schema


def _place(location: tuple[int | str, ...]) -> str:
    """`files[0].file_path`"""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return _cut("".join(parts).removeprefix(".")) or "the object"


def _fields(schema: JSON) -> str:
    required = schema["required"]
    return ", ".join(f"{name} (required)" if name in required else name for name in schema["properties"])


def _kind(value: Any) -> str:
    kinds = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "an array"}
    return kinds.get(type(value), "something else")


def _short(value: Any) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"
