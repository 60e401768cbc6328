"""Tools that are data: requests that are built from arguments, functions, and the schemas that hold both ways."""

import asyncio
import json
from dataclasses import replace
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from shared.config import Settings, ToolDefinition, ToolsSettings
from shared.errors import AppError
from tests.support.web_server import Answer, Asked, WebServer, web_server
from tests.workflow.web.support import allowing
from workflow.tool.base import OutcomeUnknown, Tool, ToolResult
from workflow.tool.catalogue import all_tools
from workflow.tool.dispatch import recover_call, run_call
from workflow.tool.json_schema import NOT_JUDGED
from workflow.tool.registry import Registry
from workflow.tool.testing import Calls
from workflow.web.web import Web

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "maximum": 7}, "note": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
SECRET = "s3cret-t0ken"


def add(a: int, b: int = 1) -> Any:
    return {"sum": a + b}


async def slow(a: int) -> Any:
    await asyncio.sleep(0)
    return [a]


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEATHER_KEY", SECRET)


def defined(config: dict[str, Any], **more: Any) -> Tool[Any]:
    kind = "http" if "url" in config else "function"
    given = {"type": kind, "description": "It.", "config": config, "input_schema": SCHEMA, **more}
    settings = ToolsSettings(
        definitions={"it": ToolDefinition.model_validate(given)},
        secrets=["WEATHER_KEY", "OTHER_KEY"],
        function_modules=["tests.workflow.tool"],
    )
    [tool] = [tool for tool in all_tools(Settings(tools=settings)).tools if tool.name == "it"]
    return tool


async def call(tool: Tool[Any], *servers: WebServer, **arguments: Any) -> ToolResult:
    ctx = replace(Calls().context(), web=Web(services=allowing(*servers)), effect_key="t.r/tool:1")
    return await run_call(Registry([tool]).parse("it", json.dumps(arguments)), ctx)


def ok(asked: Asked) -> Answer:
    return Answer(body=json.dumps({"was": asked.target}).encode())


async def test_a_get_puts_arguments_into_the_address_and_the_rest_into_the_query(secret: None) -> None:
    async with web_server(ok) as server:
        config = {"url": f"{server.url}/w/{{city}}?v=1", "headers": {"Authorization": "Bearer ${WEATHER_KEY}"}}
        result = await call(defined(config, effect="repeatable"), server, city="São/../x", days=3)
    [asked] = server.asked
    assert (asked.method, asked.target) == ("GET", "/w/S%C3%A3o%2F..%2Fx?v=1&days=3")
    headers = {name.lower(): value for name, value in asked.headers.items()}
    assert headers["authorization"] == f"Bearer {SECRET}"
    assert "idempotency-key" not in headers
    assert result.ok
    assert result.content.startswith('<untrusted_content source="it">')
    assert result.data["output"] == {"was": asked.target}


async def test_a_post_sends_the_arguments_as_json_with_the_key_of_its_effect() -> None:
    async with web_server(ok) as server:
        await call(defined({"url": f"{server.url}/w/{{city}}", "method": "POST"}), server, city="Rom", days=3)
    [asked] = server.asked
    assert (asked.target, json.loads(asked.body)) == ("/w/Rom", {"days": 3})
    assert {name.lower(): value for name, value in asked.headers.items()}["idempotency-key"] == "t.r/tool:1"


async def test_templates_keep_types_leave_out_what_is_not_given_and_read_no_secret_from_arguments(secret: None) -> None:
    body = {"where": "in {city}", "n": "{days}", "note": "{note}", "list": [1, "{days}"], "key": "${WEATHER_KEY}"}
    config = {"method": "PUT", "body": body, "query": {"q": "{city}!", "n": "{note}"}}
    async with web_server(ok) as server:
        await call(defined({"url": f"{server.url}/x", **config}), server, city="${WEATHER_KEY}", days=3)
    [asked] = server.asked
    assert json.loads(asked.body) == {"where": "in ${WEATHER_KEY}", "n": 3, "list": [1, 3], "key": SECRET}
    assert asked.target == "/x?q=%24%7BWEATHER_KEY%7D%21"


async def test_a_secret_that_the_server_repeats_is_not_shown(secret: None) -> None:
    async with web_server(lambda asked: Answer(status=401, body=f"bad key {SECRET}".encode())) as server:
        result = await call(defined({"url": f"{server.url}/?k=${{WEATHER_KEY}}"}), server, city="x")
    assert (result.ok, result.error_code) == (False, "http_error")
    assert "status 401:\nbad key ****" in result.content
    assert SECRET not in str(result)


ODD_SECRET = 'ab+cd/ef= "ü\\n'


@pytest.mark.parametrize("place", ["url", "query"])
async def test_the_address_is_shown_without_its_secrets(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("WEATHER_KEY", ODD_SECRET)
    async with web_server(ok) as server:
        config: dict[str, Any] = (
            {"url": f"{server.url}/{{city}}?k=${{WEATHER_KEY}}"}
            if place == "url"
            else {"url": f"{server.url}/{{city}}", "query": {"k": "${WEATHER_KEY}"}}
        )
        result = await call(defined(config, effect="repeatable"), server, city="Rom")
    assert result.ok
    assert result.data["url"] == f"{server.url}/Rom?k=****"
    assert result.data["output"] == {"was": "/Rom?k=****"}


@pytest.mark.parametrize(
    "said",
    [
        ODD_SECRET,
        quote(ODD_SECRET),
        quote(ODD_SECRET, safe=""),
        quote_plus(ODD_SECRET).lower(),
        json.dumps(ODD_SECRET)[1:-1],
        json.dumps(ODD_SECRET, ensure_ascii=False)[1:-1].replace("/", "\\/"),
        ODD_SECRET.replace("+", "\\u002B"),
    ],
)
async def test_however_the_server_writes_a_secret_it_is_not_shown(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("WEATHER_KEY", ODD_SECRET)
    async with web_server(lambda asked: Answer(body=f"it was <{said}>".encode())) as server:
        result = await call(defined({"url": f"{server.url}/?k=${{WEATHER_KEY}}"}), server, city="x")
    assert result.data["output"] == "it was <****>"


async def test_a_secret_that_begins_as_another_is_masked_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", "key")
    monkeypatch.setenv("WEATHER_KEY", "key-and-more")
    async with web_server(lambda asked: Answer(body=b"key-and-more")) as server:
        config = {"url": f"{server.url}/", "headers": {"X-A": "${WEATHER_KEY}", "X-B": "${OTHER_KEY}"}}
        result = await call(defined(config), server, city="x")
    assert result.data["output"] == "****"


async def test_arguments_and_answers_have_to_fit_their_schemas() -> None:
    output = {"type": "object", "properties": {"temp": {"type": "number"}}, "required": ["temp"]}
    async with web_server(ok) as server:
        tool = defined({"url": server.url}, output_schema=output)
        wrong = await call(tool, server, city="x", days=9, other=1)
        assert server.asked == []
        result = await call(tool, server, city="x")
    assert "days: should be less than or equal to 7" in wrong.content
    assert "other is not a field" in wrong.content
    assert result.error_code == "invalid_output"
    assert "output.temp is missing" in result.content


async def test_the_guard_decides_where_requests_go() -> None:
    async with web_server(ok) as server:
        result = await call(defined({"url": server.url}), city="x")
    assert (result.error_code, server.asked) == ("http_not_sent", [])
    assert "it was not called: " in result.content


@pytest.mark.parametrize("effect", ["none", "idempotent"])
async def test_an_answer_that_is_lost_is_unknown_where_it_may_have_had_an_effect(effect: str) -> None:
    async with web_server(lambda asked: Answer(body=b"short", headers={"Content-Length": "99"})) as server:
        tool = defined({"url": server.url, "method": "POST"}, effect=effect, timeout_seconds=1)
        if effect == "none":
            with pytest.raises(OutcomeUnknown, match="not known"):
                await call(tool, server, city="x")
            with pytest.raises(OutcomeUnknown):
                await recover_call(Registry([tool]).parse("it", '{"city": "x"}'), Calls().context())
        else:
            result = await call(tool, server, city="x")
            assert result.error_code in ("http_lost", "tool_timeout")
            assert await recover_call(Registry([tool]).parse("it", '{"city": "x"}'), Calls().context()) is None


async def test_too_long_an_answer_is_not_read_to_its_end() -> None:
    async with web_server(lambda asked: Answer(body=b"x" * (5 * 1024**2 + 1))) as server:
        result = await call(defined({"url": server.url}, effect="repeatable"), server, city="x")
    assert result.error_code == "http_lost"
    assert "more than 5,242,880 bytes" in result.content


@pytest.mark.parametrize("city", ["", ".", ".."])
async def test_an_argument_cannot_change_the_rest_of_the_path(city: str) -> None:
    async with web_server(ok) as server:
        result = await call(defined({"url": f"{server.url}/a/{{city}}/b"}), server, city=city)
    assert (result.error_code, server.asked) == ("invalid_arguments", [])


NUMBERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a"]}


@pytest.mark.parametrize(("name", "output"), [("add", {"sum": 3}), ("slow", [2])])
async def test_a_function_is_called_by_name_and_gives_json(name: str, output: Any) -> None:
    tool = defined({"function": f"{__name__}:{name}"}, input_schema=NUMBERS, effect="repeatable")
    result = await call(tool, a=2)
    assert result.data["output"] == output
    assert "valid integer" in (await call(tool, a="x")).content


async def test_a_functions_output_has_to_fit_too() -> None:
    output = {"type": "array", "items": {"type": "string"}}
    tool = defined({"function": f"{__name__}:slow"}, input_schema=NUMBERS, output_schema=output)
    assert "output[0]: should be a valid string; it was 2" in (await call(tool, a=2)).content


INTEGER = {"type": "integer"}
RULES: list[tuple[dict[str, Any], Any, str]] = [
    (INTEGER | {"multipleOf": 5}, 3, "{}: should be a multiple of 5; it was 3"),
    ({"type": "array", "uniqueItems": True}, [1, 1], "{}: should have no item twice; it was [1, 1]"),
    ({"allOf": [INTEGER, {"minimum": 5}]}, 3, "{}: should be greater than or equal to 5; it was 3"),
    ({"not": {"const": "x"}}, "x", "{}: should keep the rule not: {{'const': 'x'}}; it was 'x'"),
    ({"if": INTEGER, "then": {"minimum": 5}}, 3, "{}: should be greater than or equal to 5; it was 3"),
    ({"prefixItems": [INTEGER]}, ["x"], "{}[0]: should be a valid integer; it was 'x'"),
    ({"type": "string", "pattern": "^a+$"}, "b", "{}: should match the pattern ^a+$; it was 'b'"),
    ({"oneOf": [INTEGER, {"minimum": 5}]}, 7, "{}: should be of exactly one of its forms; it was 7"),
    ({"additionalProperties": INTEGER}, {"m": "x"}, "{}.m: should be a valid integer; it was 'x'"),
    ({"additionalProperties": False}, {"m": 1}, "{}.m is not a field of it. Allowed: ."),
    (
        {"patternProperties": {"^x-": True}, "additionalProperties": False},
        {"x-a": 1, "m": 1},
        "{}.m is not a field of it. Allowed: .",
    ),
    ({"properties": {"m": False}}, {"m": 1}, "{}: should not have this in it; it was 1"),
    ({"$ref": "#/$defs/five"}, 6, "{}: should be 5; it was 6"),
    ({"multipleOf": 0.5}, float("inf"), NOT_JUDGED.removeprefix("- ")),
]


def same(value: Any = None) -> Any:
    return value


@pytest.mark.parametrize(("rule", "value", "told"), RULES)
async def test_every_rule_of_a_definitions_schemas_holds_both_ways(rule: Any, value: Any, told: str) -> None:
    config = {"function": f"{__name__}:same"}
    defs = {"$defs": {"five": {"const": 5}}}
    ruled = defs | {"type": "object", "properties": {"value": rule}}
    wrong = await call(defined(config, input_schema=ruled, effect="repeatable"), value=value)
    assert wrong.error_code == "invalid_arguments"
    assert wrong.content.split("\n")[1:] == [f"- {told.format('value')}"]
    if value != float("inf"):  # no function can give it
        free = {"type": "object", "properties": {"value": {}}}
        result = await call(defined(config, input_schema=free, output_schema=defs | rule), value=value)
        assert result.error_code == "invalid_output"
        assert f"\n- {told.format('output')}\n" in result.content


async def test_what_no_schema_can_judge_is_not_called() -> None:
    endless = {"type": "object", "properties": {"value": {"$ref": "#/properties/value"}}}
    tool = defined({"function": f"{__name__}:same"}, input_schema=endless, effect="repeatable")
    assert (await call(tool)).ok
    assert NOT_JUDGED in (await call(tool, value=1)).content


@pytest.mark.parametrize(
    ("config", "more", "cure"),
    [
        ({"url": "https://{city}/"}, {}, "config.url has a host that arguments choose"),
        ({"url": "https://a.test/{town}"}, {}, r"\{town\}, which is no property of input_schema"),
        ({"url": "https://a.test/${HOME}"}, {}, r"\$\{HOME\} is not among tools.secrets"),
        ({"url": "https://a.test/${WEATHER_KEY}"}, {}, r"\$\{WEATHER_KEY\} is not set in the worker's environment"),
        ({"url": "https://a.test"}, {"type": "function"}, "needs config.function"),
        ({"function": "os:system"}, {}, "os is not among tools.function_modules"),
        ({"function": "tests.workflow.toolbox:x"}, {}, "tests.workflow.toolbox is not among"),
        ({"function": f"{__name__}:nothing"}, {}, "cannot be had: .*nothing"),
        ({"function": f"{__name__}:SCHEMA"}, {}, "cannot be called"),
        ({"url": "https://a.test"}, {"input_schema": {"type": "objekt"}}, "input_schema is no JSON Schema"),
        ({"url": "https://a.test"}, {"input_schema": {"type": "array"}}, "has to be of an object"),
        ({"url": "https://a.test"}, {"output_schema": {"pattern": "("}}, "output_schema is no JSON Schema"),
        ({"url": "https://a.test"}, {"output_schema": {"items": {"$ref": "#/$defs/x"}}}, "refers to #/\\$defs/x"),
        ({"url": "https://a.test"}, {"output_schema": {"$ref": "https://a.test/s"}}, "refers to https://a.test/s"),
    ],
)
def test_what_is_wrong_with_a_definition_is_told(config: dict[str, Any], more: dict[str, Any], cure: str) -> None:
    with pytest.raises(AppError, match=rf"tools\.definitions\.it: .*{cure}"):
        defined(config, **more)
