"""Tools of a workspace in a worker: they get nothing that is the installation's."""

import json
from dataclasses import replace
from typing import Any

import pytest

from shared.config import Settings, ToolsSettings
from shared.errors import AppError, ErrorCode
from shared.net.guard import Guard
from shared.types import JSON
from tests.support.web_server import Answer, web_server
from tests.workflow.web.support import allowing
from workflow.tool.base import Tool, ToolResult
from workflow.tool.dispatch import run_call
from workflow.tool.registry import Registry
from workflow.tool.testing import Calls
from workflow.tool.workspace import WorkspaceTools
from workflow.web.web import Web

CITY: JSON = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 5}}, "required": ["city"]}


def shout(city: str) -> Any:
    return city.upper()


def row(**fields: Any) -> JSON:
    given = {"name": "it", "type": "http", "description": "It.", "config": {}, "input_schema": CITY}
    return {
        **given,
        "output_schema": None,
        "effect": "repeatable",
        "timeout_seconds": None,
        "id": "i",
        "version": 1,
        **fields,
    }


def made(guard: Guard | None = None, **fields: Any) -> Tool[Any]:
    settings = ToolsSettings(function_modules=["tests.workflow.tool"], disabled=["secret*"])
    [tool] = WorkspaceTools(Settings(tools=settings), guard or Guard()).made([row(**fields)])
    return tool


async def call(tool: Tool[Any], web: Web | None = None, **arguments: Any) -> ToolResult:
    ctx = replace(Calls().context(), web=web or Web())
    return await run_call(Registry([tool]).parse("it", json.dumps(arguments)), ctx)


async def test_it_reaches_its_own_servers_and_not_those_of_the_settings() -> None:
    async with web_server(lambda _: Answer(body=b'{"a": 1}')) as server:
        tool = made(config={"url": f"{server.url}/{{city}}"})
        found = await call(tool, Web(workspaces=allowing(server)), city="oslo")
        assert (found.ok, found.data["output"]) == (True, {"a": 1})
        refused = await call(tool, Web(pages=allowing(server), services=allowing(server)), city="oslo")
        assert (refused.error_code, [asked.target for asked in server.asked]) == ("http_not_sent", ["/oslo"])


async def test_its_schemas_are_enforced_both_ways() -> None:
    async with web_server(lambda _: Answer(body=b"[1, 2]")) as server:
        web = Web(workspaces=allowing(server))
        config = {"url": f"{server.url}/{{city}}"}
        fits = made(config=config, output_schema={"type": "array", "items": {"type": "integer"}})
        assert (await call(fits, web, city="oslo")).ok
        not_so = made(config=config, output_schema={"type": "object"})
        assert (await call(not_so, web, city="oslo")).error_code == "invalid_output"
        assert (await call(fits, web, city="too long")).error_code == "invalid_arguments"
        assert len(server.asked) == 2


async def test_a_function_of_the_modules_that_are_offered_is_called() -> None:
    tool = made(type="function", config={"function": f"{__name__}:shout"})
    assert (await call(tool, city="oslo")).content == "OSLO"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"type": "function", "config": {"function": "os:system"}}, "os is not among tools.function_modules"),
        ({"type": "function", "config": {"function": f"{__name__}:nothing"}}, "cannot be had"),
        ({"config": {"url": "https://a.test/${HOME}"}}, r"names \$\{HOME\}, and gets no secrets"),
        ({"type": "mcp", "config": {"url": "https://a.test/", "tool": "t", "headers": {"x": "${HOME}"}}}, "no secrets"),
        ({"type": "mcp", "config": {"command": "sh", "tool": "t"}}, "url"),
        ({"config": {"url": "nonsense"}}, "url"),
    ],
)
def test_what_it_may_not_have_makes_it_unusable(fields: JSON, why: str) -> None:
    with pytest.raises(AppError, match=why) as refused:
        made(**fields)
    assert refused.value.code is ErrorCode.INVALID_REQUEST


def test_one_that_is_disabled_is_not_made() -> None:
    tools = WorkspaceTools(Settings(tools=ToolsSettings(disabled=["secret*"])), Guard())
    assert tools.made([row(name="secret_tool", config={"url": "https://a.test/"})]) == []
