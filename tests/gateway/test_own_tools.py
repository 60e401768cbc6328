"""Tools of a workspace over HTTP: what they may be, who is told of them, and what runs carry of them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.config import ToolsSettings
from shared.types import JSON, TOOL_TRIAL, RunStatus
from tests.gateway.support import Gateway, serving, settings_for, until
from tests.gateway.test_agent_runs import run_of
from tests.gateway.test_agents import made, tell
from tests.gateway.test_teams import catalogue
from tests.support.databases import put_database

__all__ = ["catalogue"]

HTTP: JSON = {"name": "weather", "type": "http", "config": {"url": "https://a.test/{city}"}}
CITY: JSON = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture
async def offering(redis_url: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    """Functions of a module may be tools here, and one name is disabled."""
    put_database(tmp_path)
    tools = ToolsSettings(function_modules=["shop"], disabled=["secret*"])
    async with serving(settings_for(redis_url, tmp_path, tools=tools)) as gateway:
        await tell(gateway)
        yield gateway


async def a_tool(gateway: Gateway, **fields: Any) -> JSON:
    answer = await gateway.client.post("/api/tools", json={**HTTP, "input_schema": CITY, **fields})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_a_tool_is_made_read_changed_and_deleted(catalogue: Gateway) -> None:
    schema = {"type": "object", "properties": {"degrees": {"type": "number"}}}
    tool = await a_tool(catalogue, outputSchema=schema, effect="repeatable", timeout_seconds=5)
    assert (tool["of_workspace"], tool["description"], tool["version"]) == (True, "weather", 1)
    assert (tool["input_schema"], tool["output_schema"], tool["effect"]) == (CITY, schema, "repeatable")
    path = f"/api/tools/{tool['id']}"
    read = await catalogue.client.get(path)
    assert (read.json(), read.headers["etag"]) == (tool, '"1"')
    changed = await catalogue.client.patch(path, json={"timeout_seconds": None, "description": "It."})
    now = changed.json()
    assert (now["timeout_seconds"], now["description"], now["version"]) == (None, "It.", 2)
    stale = await catalogue.client.patch(path, json={"description": "x"}, headers={"If-Match": '"1"'})
    assert stale.status_code == 409
    wrong = await catalogue.client.patch(path, json={"config": {"url": "https://a.test/{town}"}})
    assert (wrong.status_code, wrong.json()["errors"][0]["place"]) == (400, "body.config")
    assert (await catalogue.client.post("/api/tools", json={**HTTP, "input_schema": CITY})).status_code == 409
    assert (await catalogue.client.delete(path)).status_code == 204
    assert (await catalogue.client.get(path)).status_code == 404


async def test_the_workspaces_tools_and_the_workers_are_one_list(gateway: Gateway) -> None:
    await tell(gateway)
    own = [(await a_tool(gateway, name=name))["name"] for name in ("a", "b", "c")]
    found: list[JSON] = []
    cursor = ""
    while True:
        page = (await gateway.client.get(f"/api/tools?limit=2{cursor}")).json()
        found += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert [tool["name"] for tool in found[:3]] == own[::-1]
    workers = [tool["name"] for tool in found[3:]]
    assert workers == sorted(set(workers))
    assert {"bash", "web_fetch"} <= set(workers)
    of_http = (await gateway.client.get("/api/tools?type=http")).json()["items"]
    assert [tool["name"] for tool in of_http] == own[::-1]


async def test_a_workers_tool_is_read_by_its_name_and_is_nobodys_to_change(gateway: Gateway) -> None:
    await tell(gateway)
    bash = (await gateway.client.get("/api/tools/bash")).json()
    assert (bash["id"], bash["of_workspace"], bash["version"]) == ("bash", False, None)
    for answer in (
        await gateway.client.patch("/api/tools/bash", json={"description": "x"}),
        await gateway.client.delete("/api/tools/bash"),
        await gateway.client.post("/api/tools/bash/test", json={}),
    ):
        assert (answer.status_code, "tool of the workers" in answer.text) == (409, True)


@pytest.mark.parametrize("name", ["bash", "web_search", "mcp__a__b"])
async def test_a_name_of_the_workers_is_not_to_be_had(gateway: Gateway, name: str) -> None:
    await tell(gateway)
    refused = await gateway.client.post("/api/tools", json={**HTTP, "name": name, "input_schema": CITY})
    assert (refused.status_code, "another name" in refused.text) == (409, True)


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"name": "two words"}, "body.name"),
        ({"config": {}}, "body.config.url"),
        ({"config": {"url": "ftp://a.test"}}, "body.config.url"),
        ({"config": {"url": "https://a.test", "token": "x"}}, "body.config.token"),
        ({"config": {"url": "https://{city}.test/"}}, "body.config.url"),
        ({"config": {"url": "https://a.test/{town}"}}, "body.config"),
        ({"config": {"url": "https://a.test/", "headers": {"Authorization": "Bearer ${API_KEY}"}}}, "body.config"),
        ({"config": {"url": "https://a.test/", "body": {"key": ["${API_KEY}"]}}}, "body.config"),
        ({"input_schema": {"type": "string"}}, "body.input_schema"),
        (
            {"input_schema": {**CITY, "properties": {"city": {"pattern": "(a+)+$"}}}},
            "body.input_schema.properties.city",
        ),
        ({"output_schema": {"$ref": "https://a.test/schema"}}, "body.output_schema"),
        ({"output_schema": {"type": "wish"}}, "body.output_schema"),
        ({"output_schema": {"description": "x" * 70_000}}, "body.output_schema"),
        ({"type": "function", "config": {"functionName": "os:system"}}, "body.config.function"),
        ({"type": "mcp", "config": {"command": "sh", "tool": "x"}}, "body.config.url"),
        ({"type": "mcp", "config": {"url": "https://a.test", "tool": "x", "headers": {"k": "${HOME}"}}}, "body.config"),
        ({"type": "builtin", "config": {"tool": "hammer"}}, "body.config.tool"),
        ({"type": "builtin", "config": {"tool": "web_search"}}, "body.config.tool"),
        ({"type": "spell"}, "body.type"),
        ({"effect": "magic"}, "body.effect"),
    ],
)
async def test_what_a_workspaces_tool_may_not_be_is_told_with_its_place(
    offering: Gateway, wrong: JSON, place: str
) -> None:
    answer = await offering.client.post("/api/tools", json={**HTTP, "input_schema": CITY, **wrong})
    assert answer.status_code == 400, answer.text
    assert place in [error["place"] for error in answer.json()["errors"]]


async def test_agents_name_their_workspaces_tools_by_name_or_id_and_runs_carry_them(gateway: Gateway) -> None:
    await tell(gateway)
    tool = await a_tool(gateway)
    other = await a_tool(gateway, name="other")
    shell = await a_tool(gateway, name="shell", type="builtin", config={"tool": "bash"}, input_schema={})
    agent = await made(gateway, tools=["ls", tool["id"], "shell"], activate=True)
    thread = await gateway.client.post("/api/agent/initiate", json={"agent_id": agent["id"]})
    run = await run_of(gateway, await gateway.execute(thread.json()["thread_id"]))
    assert run.options["tools"] == ["ls", "weather", "bash"]
    assert run.definition
    [carried] = run.definition["tools"]
    assert carried == {name: tool[name] for name in carried}
    assert carried.keys() >= {"id", "name", "type", "config", "input_schema", "output_schema", "effect"}

    asked = await run_of(gateway, await gateway.execute(thread.json()["thread_id"], parameters={"tools": ["other"]}))
    assert (asked.options["tools"], asked.definition and asked.definition["tools"][0]["id"]) == (["other"], other["id"])
    plain = await run_of(gateway, await gateway.execute(await gateway.thread(), parameters={"tools": [shell["id"]]}))
    assert (plain.parameters["tools"], plain.definition) == (["bash"], None)


async def test_a_retry_may_be_given_other_tools(gateway: Gateway) -> None:
    await tell(gateway)
    tool = await a_tool(gateway)
    run_id = await gateway.execute(await gateway.thread())
    await (await gateway.attempt(run_id)).end(RunStatus.FAILED, {"error": {}}, {"error": {}})
    again = await gateway.client.post(f"/api/runs/{run_id}/retry", json={"parameters": {"tools": ["weather"]}})
    run = await run_of(gateway, again.json()["run_id"])
    assert run.definition
    assert [row["id"] for row in run.definition["tools"]] == [tool["id"]]


async def test_tools_that_are_not_there_are_refused_wherever_they_are_named(offering: Gateway) -> None:
    await a_tool(offering, name="secret_tool")
    for name in ("hammer", "secret_tool", "web_search"):
        agent = await offering.client.post("/api/agents", json={"name": "A", "tools": [name]})
        assert (agent.status_code, agent.json()["errors"][0]["place"]) == (400, "body.tools")
        body = {"task": "x", "parameters": {"tools": ["bash", name]}}
        run = await offering.client.post(f"/api/agent/{await offering.thread()}/execute", json=body)
        assert (run.status_code, run.json()["errors"][0]["place"]) == (400, "body.parameters.tools")


async def test_a_trial_is_a_run_of_a_function_that_no_client_can_ask_for(gateway: Gateway) -> None:
    tool = await a_tool(gateway)
    path, key = f"/api/tools/{tool['id']}/test", {"Idempotency-Key": "k"}
    body = {"input": {"city": "oslo"}, "wait_seconds": 0}
    began = await gateway.client.post(path, json=body, headers=key)
    assert (began.status_code, began.json()["status"], began.json()["ok"]) == (202, "pending", None)
    run = await run_of(gateway, began.json()["run_id"])
    assert (run.runnable_id, run.input and run.input["input"]["arguments"]) == (TOOL_TRIAL, {"city": "oslo"})
    attempt = await gateway.attempt(run.id)
    output = {"ok": True, "content": "7", "data": {"output": 7}, "error_code": None}
    await attempt.end(RunStatus.SUCCEEDED, {"output": output}, {"output": output})
    ended = await gateway.client.post(path, json=body, headers=key)
    assert ended.status_code == 200
    assert (ended.json()["run_id"], ended.json()["ok"], ended.json()["output"]) == (run.id, True, 7)


async def test_the_answer_to_a_trial_waits_for_its_end(gateway: Gateway) -> None:
    tool = await a_tool(gateway)

    async def fail() -> None:
        runs: list[str] = []

        async def asked() -> bool:
            runs[:] = [str(key) async for key in gateway.redis.scan_iter("*:run:*")]
            return bool(runs)

        await until(asked)
        attempt = await gateway.attempt(runs[0].rpartition(":")[2])
        error = {"code": "invalid_request", "detail": "No."}
        await attempt.end(RunStatus.FAILED, {"error": error}, {"error": error})

    answer, _ = await asyncio.gather(gateway.client.post(f"/api/tools/{tool['id']}/test", json={}), fail())
    assert (answer.status_code, answer.json()["ok"]) == (200, False)
    assert answer.json()["error"] == {"code": "invalid_request", "detail": "No."}
