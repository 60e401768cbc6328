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
    """Raises ValueError for a field that not every provider can be told of."""
    schema = args.model_json_schema()
    return _plain(schema, schema.get("$defs", {}))


def _plain(node: JSON, definitions: JSON) -> JSON:
    if "$ref" in node:
        return _plain(definitions[node["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in node:  # an optional field: X or null
        variants = [variant for variant in node["anyOf"] if variant != {"type": "null"}]
        if len(variants) != 1:
            raise ValueError(f"{_named(node)} may be of several types; only X | None is told to every provider")
        (variant,) = variants
        return _plain({**variant, **{key: node[key] for key in KEPT if key in node}}, definitions)
    if "type" not in node:
        raise ValueError(f"{_named(node)} has no single JSON type")
    if node["type"] == "object" and "properties" not in node and node.get("additionalProperties") is not False:
        raise ValueError(f"{_named(node)} is an object without named fields; give it a model of its own")
    plain: dict[str, Any] = {key: node[key] for key in KEPT if key in node}
    if node["type"] == "object":
        plain["properties"] = {name: _plain(field, definitions) for name, field in node.get("properties", {}).items()}
        plain["required"] = node.get("required", [])
    if node["type"] == "array":
        plain["items"] = _plain(node["items"], definitions)
    return plain


def _named(node: JSON) -> str:
    return f"the field {node['title']!r}" if "title" in node else "an item of a list"
