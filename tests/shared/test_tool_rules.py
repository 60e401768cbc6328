"""Tools that anybody may describe: what is told of those that could do harm, whatever their schemas are."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.tools import FunctionCall, HttpCall
from shared.tool_rules import DEPTH, NODES, BuiltIn, Call, McpCall, call_of, workspace_problems
from shared.types import JSON

CALL = HttpCall(url="https://a.test/")
KEYS = st.sampled_from(
    ["type", "properties", "required", "items", "anyOf", "$ref", "$defs", "enum", "additionalProperties", "allOf", "a"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


def nested(depth: int) -> JSON:
    schema: JSON = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return {"type": "object", "properties": {"a": schema}}


@given(schema=st.dictionaries(KEYS, ANYTHING, max_size=5))
def test_whatever_a_schema_is_it_is_judged_in_words(schema: JSON) -> None:
    for problem in workspace_problems(CALL, schema, schema):
        assert problem["place"].startswith(("input_schema", "output_schema"))
        assert problem["detail"]


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        (nested(DEPTH), "input_schema"),
        (nested(200), "input_schema"),
        ({"properties": {str(n): {} for n in range(NODES)}}, "input_schema"),
        ({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, "input_schema"),
        ({"properties": {"a": {"pattern": "(a+)+$"}}}, "input_schema.properties.a"),
        ({"patternProperties": {"(a+)+$": {}}}, "input_schema"),
        ({"$defs": {"d": {"not": {}}}}, "input_schema.$defs.d"),
        ({"properties": {"a": {"anyOf": [{}, True]}}}, "input_schema.properties.a.anyOf[1]"),
        ({"additionalProperties": {"type": "string"}}, "input_schema.additionalProperties"),
        ({"properties": []}, "input_schema"),
    ],
)
def test_what_could_take_for_ever_is_refused_with_its_place(schema: JSON, place: str) -> None:
    assert place in [problem["place"] for problem in workspace_problems(CALL, schema, None)]


@pytest.mark.parametrize(
    "schema",
    [
        {},
        nested(DEPTH - 3),
        {"properties": {"a": {"$ref": "#/$defs/d"}}, "$defs": {"d": {"enum": [1]}}},
        {"type": "object", "properties": {"pattern": {"type": "string", "format": "uri"}}},
    ],
)
def test_an_ordinary_schema_is_taken(schema: JSON) -> None:
    assert workspace_problems(CALL, schema, schema) == []


@pytest.mark.parametrize(
    ("kind", "config", "made"),
    [
        ("http", {"url": "https://a.test/"}, HttpCall),
        ("function", {"function": "shop:price"}, FunctionCall),
        ("mcp", {"url": "https://a.test/", "tool": "t"}, McpCall),
        ("builtin", {"tool": "bash"}, BuiltIn),
    ],
)
def test_a_config_is_read_by_its_type(kind: Any, config: JSON, made: type[Call]) -> None:
    call = call_of(kind, config)
    assert isinstance(call, made)
    assert workspace_problems(call, {}, None) == []


@pytest.mark.parametrize(
    "call",
    [
        HttpCall(url="https://a.test/${HOME}"),
        HttpCall(url="https://a.test/", headers={"x": "a${HOME}"}),
        HttpCall(url="https://a.test/", query={"q": "${HOME}"}),
        HttpCall(url="https://a.test/", body={"a": [{"b": "${HOME}"}]}),
        McpCall(url="https://a.test/", tool="t", headers={"x": "${HOME}"}),
    ],
)
def test_a_secret_is_not_to_be_named(call: Call) -> None:
    [problem] = workspace_problems(call, {}, None)
    assert (problem["place"], "${HOME}" in problem["detail"]) == ("config", True)
