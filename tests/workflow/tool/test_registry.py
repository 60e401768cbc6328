"""What providers are told of the tools, and how the arguments that models send are judged."""

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.errors import AppError
from workflow.tool.base import Effect
from workflow.tool.dispatch import is_repeatable
from workflow.tool.registry import Call, Registry, built_in_tools

NAMES = [
    "bash", "bash_output", "bash_kill", "read_file", "edit_file", "multi_edit", "write_files", "ls", "grep", "glob",
    "todo_read", "todo_write", "suggest_next_steps", "expose_port", "publish_event", "web_fetch", "web_search",
    "delegate", "job_plan", "use_template",
]  # fmt: skip
# What OpenAI, Anthropic and Gemini all document for a function's parameters.
KEYWORDS = {"type", "description", "properties", "required", "items", "enum"} | {
    "minimum", "maximum", "minItems", "maxItems",
}  # fmt: skip
OPENAI_DESCRIPTION_CHARS = 1_024
REGISTRY = built_in_tools()

JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted(
    {field for schema in REGISTRY.schemas() for field in schema["function"]["parameters"]["properties"]}
    | {"file_path", "content", "executable"}
)


def nodes(schema: dict[str, Any]) -> list[dict[str, Any]]:
    inner = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    return [schema, *(node for child in inner for node in nodes(child))]


def fault(name: str, arguments: Any) -> str:
    parsed = REGISTRY.parse(name, arguments if isinstance(arguments, str) else json.dumps(arguments))
    assert isinstance(parsed, str)
    return parsed


def test_the_built_in_tools_have_the_names_of_the_field() -> None:
    assert REGISTRY.names == NAMES


@pytest.mark.parametrize("schema", REGISTRY.schemas(), ids=NAMES)
def test_a_schema_is_one_that_every_provider_takes(schema: dict[str, Any]) -> None:
    function = schema["function"]
    assert schema["type"] == "function"
    assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}", function["name"])
    assert 50 < len(function["description"]) <= OPENAI_DESCRIPTION_CHARS
    jsonschema.Draft202012Validator.check_schema(function["parameters"])
    for node in nodes(function["parameters"]):
        assert set(node) <= KEYWORDS
        assert isinstance(node["type"], str)
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in node.get("properties", {}))
    for field in nodes(function["parameters"])[1:]:
        assert field.get("description") or field["type"] in ("string", "object")


def test_schemas_are_made_once() -> None:
    assert REGISTRY.schemas()[0] is REGISTRY.schemas()[0]


def test_some_tools_can_be_enabled_and_unknown_ones_are_named() -> None:
    some = REGISTRY.only(["ls", "bash"])
    assert some.names == ["bash", "ls"]
    with pytest.raises(AppError, match=r"No such tool: rm\. The tools are: bash, "):
        REGISTRY.only(["ls", "rm"])
    assert some.parse("read_file", "{}") == "There is no tool named 'read_file'. The tools are: bash, ls."


def test_arguments_become_typed_ones() -> None:
    call = REGISTRY.parse("read_file", '{"file_path": "a.py", "offset": "3", "limit": null}')
    assert isinstance(call, Call)
    assert call.args.model_dump() == {"file_path": "a.py", "offset": 3, "limit": 2_000}


def test_a_call_without_arguments_needs_none() -> None:
    assert all(isinstance(REGISTRY.parse("ls", text), Call) for text in ("", "{}", " "))


@pytest.mark.parametrize(
    ("name", "arguments", "rules"),
    [
        ("bash", '{"command": "ls"', ["bash", "not valid JSON", "EOF"]),
        ("bash", '["ls"]', ["must be one JSON object", "command (required)", "an array"]),
        ("bash", '"ls"', ["must be one JSON object", "a string: 'ls'"]),
        ("bash", {}, ["command is missing"]),
        ("bash", {"command": None}, ["command: should be a valid string; it was None"]),
        ("bash", {"command": ["ls"]}, ["command: should be a valid string; it was ['ls']"]),
        ("bash", {"cmd": "ls"}, ["cmd is not a field", "command (required), description", "Did you mean command?"]),
        ("bash", {"command": "ls", "timeout_ms": 5}, ["timeout_ms", "greater than or equal to 1000", "5"]),
        ("read_file", {"file_path": "a", "offset": 0}, ["offset", "greater than or equal to 1"]),
        ("read_file", {"file_path": "a", "limit": "many"}, ["limit", "valid integer", "'many'"]),
        ("write_files", {"files": []}, ["files", "at least 1 item"]),
        (
            "write_files",
            {"files": [{"path": "a", "content": ""}]},
            ["files[0].file_path is missing", "files[0].path is"],
        ),
        ("write_files", {"files": [{"file_path": "a", "content": {"a": 1}}]}, ["files[0].content", "string"]),
        ("ls", {"depth": 4, "all": True}, ["depth: should be less than or equal to 3", "all is not a field"]),
        ("bash", '{"command": "\\ud800"}', ["not valid JSON", "hex escape"]),
        ("nothing", "{}", ["no tool named 'nothing'", *NAMES]),
    ],
)
def test_wrong_arguments_get_a_text_that_names_the_rule(name: str, arguments: Any, rules: list[str]) -> None:
    text = fault(name, arguments)
    assert [rule for rule in rules if rule not in text] == []
    assert len(text) < 1_500


@given(
    st.sampled_from(NAMES), st.dictionaries(st.sampled_from(FIELDS), JSON_VALUE, max_size=4).map(json.dumps) | st.text()
)
@example("bash", "[" * 10_000)
@example("bash", '{"command": ' + "9" * 10_000 + "}")
@example("bash", '{"command": "' + "x" * 100_000 + '", "a": 1}')
@example("ls", '{"depth": NaN}')
@example("ls", '{"depth": 1e400}')
@example("write_files", '{"files": {"0": 1}}')
@example("bash", '{"command": "a", "command": "b"}')
def test_whatever_a_model_sends_is_a_call_or_a_text(name: str, arguments: str) -> None:
    parsed = REGISTRY.parse(name, arguments)
    if isinstance(parsed, Call):
        assert parsed.tool.name == name
        parsed.args.model_dump_json()
    else:
        assert 0 < len(parsed) < 5_000
        parsed.encode()


def test_only_calls_that_read_run_side_by_side() -> None:
    effects = {name: REGISTRY.parse(name, arguments) for name, arguments in SMALLEST.items()}
    assert {name for name, call in effects.items() if is_repeatable(call)} == {
        "bash_output", "read_file", "ls", "grep", "glob", "todo_read", "suggest_next_steps", "web_fetch", "web_search",
        "expose_port", "delegate",
    }  # fmt: skip
    assert is_repeatable("a text that tells the model what is wrong")
    assert [
        call.tool.name for call in effects.values() if isinstance(call, Call) and call.tool.effect is Effect.NONE
    ] == ["bash"]


SMALLEST = {
    "expose_port": '{"port": 80}',
    "bash": '{"command": "ls"}',
    "bash_output": '{"task_id": "bg_1"}',
    "bash_kill": '{"task_id": "bg_1"}',
    "read_file": '{"file_path": "a"}',
    "edit_file": '{"file_path": "a", "old_string": "a", "new_string": "b"}',
    "write_files": '{"files": [{"file_path": "a", "content": "b"}]}',
    "ls": "{}",
    "multi_edit": '{"edits": [{"file_path": "a", "old_string": "a", "new_string": "b"}]}',
    "grep": '{"pattern": "a"}',
    "glob": '{"pattern": "*.py"}',
    "todo_read": "{}",
    "todo_write": '{"todos": [{"content": "a"}]}',
    "job_plan": '{"title": "a", "steps": [{"title": "b"}]}',
    "suggest_next_steps": '{"suggestions": [{"title": "a", "prompt": "b", "kind": "run"}]}',
    "publish_event": '{"name": "paid"}',
    "web_fetch": '{"url": "https://example.com/"}',
    "delegate": '{"description": "a", "prompt": "b"}',
    "web_search": '{"query": "news"}',
    "use_template": '{"template": "a"}',
}


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_and_the_parser_agree(name: str) -> None:
    """What is parsed is valid by the schema that the model was told, and the other way round."""
    (schema,) = [s["function"]["parameters"] for s in REGISTRY.schemas() if s["function"]["name"] == name]
    jsonschema.validate(json.loads(SMALLEST[name]), schema)
    assert isinstance(REGISTRY.parse(name, SMALLEST[name]), Call)
    for field in schema["required"]:
        less = {key: value for key, value in json.loads(SMALLEST[name]).items() if key != field}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(less, schema)
        assert f"{field} is missing" in fault(name, less)


def test_a_registry_may_be_empty() -> None:
    assert Registry([]).schemas() == []
