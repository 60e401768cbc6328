"""JSON Schemas, and what models are told of them and of the rules that a value breaks.

Those that somebody else wrote are made plain before anything is judged by them. Nothing of them is trusted: references
lead nowhere else, patterns are left out (they could take for ever), and what is too deep or too large is taken for
"anything".
"""

import json
import re
from collections.abc import Iterator
from itertools import count
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry

from shared.tool_rules import DEPTH, NODES
from shared.types import JSON
from workflow.tool.arguments import Location, broken_rule, missing_field, short, unknown_field
from workflow.tool.untrusted import cleaned

TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
NUMBERS = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("minLength", "maxLength", "minItems", "maxItems"),
)
PROPERTIES = 100
CHOICES = 200
CHOICES_CHARS = 5_000
NAME_CHARS = 200
DESCRIPTION_CHARS = 1_000
LARGEST = 50_000
"""Characters of JSON. Each call of a model would pay for a larger one."""
# Taken by models and not by all providers: arguments are judged by them all the same.
JUDGED_ONLY = ("additionalProperties", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength")
RULES = {
    "minimum": "should be greater than or equal to {}",
    "maximum": "should be less than or equal to {}",
    "exclusiveMinimum": "should be greater than {}",
    "exclusiveMaximum": "should be less than {}",
    "minLength": "should have at least {} characters",
    "maxLength": "should have at most {} characters",
    "minItems": "should have at least {} items",
    "maxItems": "should have at most {} items",
    "anyOf": "should be of one of the forms that it may have",
    "oneOf": "should be of exactly one of its forms",
    "multipleOf": "should be a multiple of {}",
    "uniqueItems": "should have no item twice",
    "pattern": "should match the pattern {}",
    "const": "should be {}",
}
NOT_JUDGED = "- the object cannot be judged by its schema: it is nested too deeply, or has numbers too large"


def plain_schema(schema: Any) -> JSON:
    """The schema of an object, without references, of the keywords that are understood here. Never raises."""
    return {"type": "object", "properties": {}, "required": [], **plain_part(schema)} | {"type": "object"}


def plain_part(schema: Any) -> JSON:
    """As `plain_schema`, of anything."""
    definitions = schema if isinstance(schema, dict) else {}
    plain = _plain(definitions, definitions, count(1), 0)
    return {} if _size(plain) > LARGEST else plain


def told_schema(schema: JSON) -> JSON:
    """A plain schema in the keywords that every provider takes. A field that may be null is told as its other form."""
    if "anyOf" in schema:
        forms = [form for form in schema["anyOf"] if form.get("type") != "null"]
        if len(forms) == 1:
            return told_schema({**schema, **forms[0]} | {"anyOf": []})
    told = {key: value for key, value in schema.items() if key not in JUDGED_ONLY}
    if isinstance(told.get("type"), list):
        told["type"] = next((kind for kind in told["type"] if kind != "null"), "string")
    if "properties" in told:
        told["properties"] = {name: told_schema(field) for name, field in told["properties"].items()}
    if "items" in told:
        told["items"] = told_schema(told["items"])
    if forms := told.pop("anyOf", []):
        told["anyOf"] = [told_schema(form) for form in forms]
    return told


def faults(schema: JSON, value: Any, place: Location = ()) -> list[str]:
    """Which rules of a schema the value at `place` breaks, for a model to read. Formats are no rules."""
    errors = Draft202012Validator(schema, registry=Registry()).iter_errors(value)
    try:
        return list(dict.fromkeys(line for error in errors for line in _lines(error, place)))
    except (RecursionError, ArithmeticError, ValueError):
        return [NOT_JUDGED]


def _plain(node: JSON, root: JSON, nodes: Iterator[int], depth: int) -> JSON:
    if next(nodes) > NODES or depth > DEPTH:
        return {}
    node = _referred(node, root)
    plain: JSON = {key: node[key] for key in NUMBERS if _is_number(node.get(key))}
    kind = node.get("type")
    kinds = [kind] if isinstance(kind, str) else kind
    if kinds and isinstance(kinds, list) and all(each in TYPES for each in kinds):
        plain["type"] = kind
    if isinstance(text := node.get("description"), str):
        plain["description"] = cleaned(text)[:DESCRIPTION_CHARS]
    choices = [node["const"]] if "const" in node else node.get("enum")
    if isinstance(choices, list) and 0 < len(choices) <= CHOICES and _can_be_told(choices):
        plain["enum"] = choices
    forms = node.get("anyOf") or node.get("oneOf")
    if isinstance(forms, list) and forms:
        plain["anyOf"] = [_plain(form, root, nodes, depth + 1) for form in forms[:CHOICES] if isinstance(form, dict)]
    return plain | _children(node, root, nodes, depth)


def _children(node: JSON, root: JSON, nodes: Iterator[int], depth: int) -> JSON:
    children: JSON = {}
    if isinstance(fields := node.get("properties"), dict):
        named = [(name, field) for name, field in fields.items() if isinstance(field, dict) and _is_name(name)]
        children["properties"] = {name: _plain(field, root, nodes, depth + 1) for name, field in named[:PROPERTIES]}
        required = node.get("required")
        known = children["properties"]
        children["required"] = [name for name in known if name in required] if isinstance(required, list) else []
        if node.get("additionalProperties") is False:
            children["additionalProperties"] = False
    elif node.get("type") == "object":
        children |= {"properties": {}, "required": []}
    if isinstance(items := node.get("items"), dict):
        children["items"] = _plain(items, root, nodes, depth + 1)
    elif node.get("type") == "array":
        children["items"] = {}
    return children


def _referred(node: JSON, root: JSON) -> JSON:
    """What a reference within the schema stands for, with what stands beside it."""
    for _ in range(DEPTH):
        reference = node.get("$ref")
        if not isinstance(reference, str):
            return node
        found: Any = root if reference.startswith("#") else None
        for part in filter(None, reference.removeprefix("#").split("/")):
            found = found.get(part) if isinstance(found, dict) else None
        beside = {key: value for key, value in node.items() if key != "$ref"}
        node = {**found, **beside} if isinstance(found, dict) else beside
    return {}


def _is_name(text: str) -> bool:
    return len(text) <= NAME_CHARS and cleaned(text) == text


def _can_be_told(choices: list[Any]) -> bool:
    """They are told as they are, or not at all: another one would be none of them."""
    return _size(choices) <= CHOICES_CHARS and all(cleaned(each) == each for each in choices if isinstance(each, str))


def _size(value: Any) -> int:
    return len(json.dumps(value, default=str))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _lines(error: ValidationError, place: Location) -> Iterator[str]:
    location, value = (*place, *error.absolute_path), cast("Any", error.instance)
    holder = cast("JSON", error.schema)
    match str(error.validator):
        case "None":  # the schema is `false`, and the place that of what holds the value
            yield broken_rule(location, "should not have this in it", value)
        case "required":
            yield from (missing_field((*location, name)) for name in holder["required"] if name not in value)
        case "additionalProperties":
            holder = {"properties": {}, "required": []} | holder
            yield from (unknown_field((*location, name), holder) for name in _unknown(holder, value))
        case keyword:
            yield broken_rule(location, _rule(keyword, error.validator_value), value)


def _unknown(holder: JSON, value: JSON) -> list[str]:
    patterns = list(holder.get("patternProperties", ()))
    names = sorted(value.keys() - holder["properties"].keys())
    return [name for name in names if not any(re.search(pattern, name) for pattern in patterns)]


def _rule(keyword: str, value: Any) -> str:
    if keyword == "type":
        return f"should be a valid {' or '.join([value] if isinstance(value, str) else value)}"
    if keyword == "enum":
        return f"should be {' or '.join(map(repr, value[:20]))}"
    if keyword in RULES:
        return RULES[keyword].format(value)
    return f"should keep the rule {keyword}: {short(value)}"
