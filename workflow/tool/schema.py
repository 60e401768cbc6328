"""A tool's arguments as the JSON Schema that every provider takes: no references, no nulls, no meta keywords."""

from typing import Any

from pydantic import BaseModel

from shared.types import JSON

# What OpenAI, Anthropic and Gemini all take. `additionalProperties` is not among it: Gemini refuses it.
KEPT = ("type", "description", "enum", "minimum", "maximum", "minItems", "maxItems")


def function_schema(name: str, description: str, parameters: JSON) -> JSON:
    """An entry of OpenAI's `tools`."""
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


def parameters_schema(args: type[BaseModel]) -> JSON:
    schema = args.model_json_schema()
    return _plain(schema, schema.get("$defs", {}))


def _plain(node: JSON, definitions: JSON) -> JSON:
    if "$ref" in node:
        return _plain(definitions[node["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in node:  # an optional field: X or null
        (variant,) = [variant for variant in node["anyOf"] if variant != {"type": "null"}]
        return _plain({**variant, **{key: node[key] for key in KEPT if key in node}}, definitions)
    plain: dict[str, Any] = {key: node[key] for key in KEPT if key in node}
    if node["type"] == "object":
        plain["properties"] = {name: _plain(field, definitions) for name, field in node["properties"].items()}
        plain["required"] = node.get("required", [])
    if node["type"] == "array":
        plain["items"] = _plain(node["items"], definitions)
    return plain
