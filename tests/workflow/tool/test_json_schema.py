"""Schemas that others wrote: what is left of them, what a model is told, and how arguments are judged."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.types import JSON
from workflow.tool.base import Effect, ToolContext, ToolResult
from workflow.tool.json_schema import LARGEST, faults, plain_schema, told_schema
from workflow.tool.registry import Call, Registry
from workflow.tool.schema_tool import GivenArgs, SchemaTool

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "title": "T",
    "properties": {
        "path": {"type": "string", "description": "Where.\u202e", "minLength": 1, "pattern": "^(a+)+$"},
        "mode": {"enum": ["fast", "slow"]},
        "limit": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}], "default": None},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}, "minItems": 1},
        "free": {"type": "object"},
    },
    "required": ["path", "gone"],
    "additionalProperties": False,
    "$defs": {"item": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}},
}


class Echo(SchemaTool):
    async def run(self, args: GivenArgs, ctx: ToolContext) -> ToolResult:
        return ToolResult(True, json.dumps(args.fields))


REGISTRY = Registry([Echo("echo", "Echoes.", SCHEMA, Effect.REPEATABLE, asks_when_unknown=False)])


def parsed(**fields: Any) -> Call | str:
    return REGISTRY.parse("echo", json.dumps(fields))


def test_a_model_is_told_what_every_provider_takes() -> None:
    (schema,) = REGISTRY.schemas()
    assert schema["function"]["parameters"] == {
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "Where."},
            "mode": {"enum": ["fast", "slow"]},
            "limit": {"type": "integer", "minimum": 1},
            "items": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
            },
            "free": {"type": "object", "properties": {}, "required": []},
        },
        "required": ["path"],
    }


def test_arguments_that_fit_come_as_they_are() -> None:
    call = parsed(path="a", limit=None, items=[{"n": 1}], free={"x": 1})
    assert isinstance(call, Call)
    assert call.args == GivenArgs(fields={"path": "a", "items": [{"n": 1}], "free": {"x": 1}})


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ({}, ["- path is missing: it is required"]),
        ({"path": 3}, ["- path: should be a valid string; it was 3"]),
        ({"path": ""}, ["- path: should have at least 1 characters; it was ''"]),
        ({"path": "a", "mode": "x"}, ["- mode: should be 'fast' or 'slow'; it was 'x'"]),
        ({"path": "a", "limit": 0}, ["- limit: should be of one of the forms that it may have; it was 0"]),
        ({"path": "a", "items": []}, ["- items: should have at least 1 items; it was []"]),
        ({"path": "a", "items": [{}]}, ["- items[0].n is missing: it is required"]),
        (
            {"pth": "a"},
            [
                "- path is missing: it is required",
                "- pth is not a field of it. Allowed: path (required), mode, limit, items, free. Did you mean path?",
            ],
        ),
    ],
)
def test_arguments_that_do_not_fit_get_the_same_words_as_those_of_other_tools(
    fields: dict[str, Any], lines: list[str]
) -> None:
    text = parsed(**fields)
    assert isinstance(text, str)
    first, *rest = text.split("\n")
    assert first == "The arguments of echo are wrong, so it was not called:"
    assert sorted(rest) == sorted(lines)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"$ref": "#"},
        {"properties": {"a": {"$ref": "#/properties/a"}}},
        {"properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}},
        {"type": "nonsense", "properties": [], "required": "all", "enum": {}, "anyOf": "x"},
        {"type": ["object", "null"], "additionalProperties": False},
        {"properties": {"a": {"const": 1, "minimum": "x", "maxLength": True}}},
        {"properties": {f"p{n}": {"type": "object"} for n in range(5_000)}},
        [],
        None,
        "x",
    ],
)
def test_no_schema_does_harm(schema: Any) -> None:
    plain = plain_schema(schema)
    told = told_schema(plain)
    assert (told["type"], "$ref" in json.dumps(plain)) == ("object", False)
    assert len(json.dumps(told)) < 100_000
    faults(plain, {"a": {"a": {"b": 1}}, "x": [1]})


WORDS = [*SCHEMA, "$ref", "items", "enum", "anyOf", "minimum", "a"]
JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=500)
@given(JSON_VALUE, st.dictionaries(st.sampled_from(["a", "b"]), JSON_VALUE))
def test_whatever_a_server_and_a_model_send_has_an_answer(schema: Any, fields: dict[str, Any]) -> None:
    plain = plain_schema(schema)
    told_schema(plain)
    assert all(line.startswith("- ") for line in faults(plain, fields))


@pytest.mark.parametrize(
    "field",
    [
        {"enum": ["x" * 1_000_000]},
        {"enum": [str(n) * 1_000 for n in range(200)]},
        {"const": {"a": ["x"] * 100_000}},
        {"type": "object", "properties": {"x" * 1_000_000: {"type": "string"}}},
        {"type": "object", "properties": {f"{n}": {"description": "x" * 1_000} for n in range(100)}},
    ],
    ids=["choice", "choices", "const", "name", "descriptions"],
)
def test_a_schema_without_measure_costs_a_model_little(field: JSON) -> None:
    plain = plain_schema({"type": "object", "properties": {"one": field, "two": {"type": "string"}}})
    assert len(json.dumps(plain)) <= LARGEST
    assert plain["properties"].get("two", {"type": "string"}) == {"type": "string"}


def test_names_and_choices_of_a_schema_are_cleaned() -> None:
    fields = {"a\u202eb": {}, "c": {"enum": [1, "z"]}, "d": {"enum": ["x", "<!-- y -->"]}}
    assert plain_schema({"type": "object", "properties": fields})["properties"] == {"c": {"enum": [1, "z"]}, "d": {}}


def test_a_pattern_that_takes_for_ever_is_not_tried() -> None:
    assert isinstance(parsed(path="a" * 5_000 + "!"), Call)
