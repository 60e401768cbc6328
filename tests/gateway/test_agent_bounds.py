"""What an agent says of its calls, its sandbox and its servers: judged when it is written, carried by its runs."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.config import McpServerSettings, McpSettings, SandboxSettings
from shared.types import JSON
from shared.workers.catalogue import DefinitionCard
from tests.gateway.support import Gateway, serving, settings_for
from tests.gateway.test_agent_runs import run_of
from tests.gateway.test_agents import made, tell
from tests.support.databases import put_database

HEADERS: JSON = {"Authorization": "Bearer s3cret"}
SERVER: JSON = {"url": "https://tickets.test/mcp", "headers": HEADERS, "tools": ["search"]}
BOUNDED = DefinitionCard(
    "bounded",
    "Of the settings.",
    "config",
    permissions=["bash: deny rm *"],
    sandbox_config={"network": "allow", "allowed_hosts": ["*.a.test"], "processes": 64},
)


@pytest.fixture
async def agents(redis_url: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    put_database(tmp_path)
    sandbox = SandboxSettings(network="allow", allowed_hosts=["*.a.test", "b.test"], processes=128)
    mcp = McpSettings(servers={"files": McpServerSettings(command="/bin/files")})
    async with serving(settings_for(redis_url, tmp_path, sandbox=sandbox, mcp=mcp)) as gateway:
        await tell(gateway, BOUNDED)
        yield gateway


async def definition_of_run(gateway: Gateway, agent: JSON, **parameters: Any) -> JSON:
    body = {"runnable_id": agent["id"], "input": {"task": "x"}, "parameters": parameters}
    answer = await gateway.client.post("/api/runs", json=body)
    assert answer.status_code == 201, answer.text
    assert "s3cret" not in answer.text
    return (await run_of(gateway, answer.json()["run_id"])).definition or {}


async def test_a_run_carries_the_bounds_of_its_agent_and_of_its_kind(agents: Gateway) -> None:
    bounds = {"network": "allow", "allowed_hosts": ["x.a.test", "b.test"], "processes": 100, "memory_bytes": 2**28}
    given = {"permissions": ["bash: ask git push*"], "sandbox": bounds, "mcp_servers": {"tickets": SERVER}}
    agent = await made(agents, definition_id="bounded", activate=True, **given)
    assert agent["permissions"] == given["permissions"]
    found = await definition_of_run(agents, agent)
    assert found["permissions"] == [["bash: deny rm *"], ["bash: ask git push*"]]
    assert found["allowed_hosts"] == ["x.a.test"]
    assert found["sandbox_limits"] == {"processes": 64, "memory_bytes": 2**28}
    assert found["mcp_servers"]["tickets"]["headers"] == HEADERS
    nothing = await made(agents, definition_id="bounded", activate=True, sandbox={"network": "none"})
    assert (await definition_of_run(agents, nothing))["allowed_hosts"] == []


async def test_a_request_may_name_tools_of_its_agents_servers_and_of_no_others(agents: Gateway) -> None:
    agent = await made(agents, activate=True, mcp_servers={"tickets": SERVER})
    await definition_of_run(agents, agent, tools=["ls", "mcp__tickets__search"])
    body = {"runnable_id": agent["id"], "input": {"task": "x"}, "parameters": {"tools": ["mcp__other__search"]}}
    assert (await agents.client.post("/api/runs", json=body)).status_code == 400


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"permissions": ["bash deny"]}, "body.permissions.0"),
        ({"sandbox": {"provider": "e2b"}}, "body.sandbox.provider"),
        ({"sandbox": {"network": "open"}}, "body.sandbox.network"),
        ({"sandbox": {"network": "allow"}}, "body.sandbox.allowed_hosts"),
        ({"sandbox": {"network": "allow", "allowed_hosts": ["c.test"]}}, "body.sandbox.allowed_hosts"),
        ({"sandbox": {"allowed_hosts": ["b.test"]}}, "body.sandbox.allowed_hosts"),
        ({"sandbox": {"processes": 129}}, "body.sandbox.processes"),
        ({"sandbox": {"memory_bytes": 2**40}}, "body.sandbox.memory_bytes"),
        ({"mcp_servers": {"files": SERVER}}, "body.mcp_servers.files"),
        ({"mcp_servers": {"a__b": SERVER}}, "body.mcp_servers.a__b.[key]"),
        ({"mcp_servers": {"t": {"command": "/bin/sh"}}}, "body.mcp_servers.t"),
        ({"mcp_servers": {"t": {**SERVER, "headers": {"A": "${HOME}"}}}}, "body.mcp_servers.t"),
        ({"mcp_servers": {"t": {**SERVER, "headers": {"A": None}}}}, "body.mcp_servers.t.headers.A"),
        ({"mcp_servers": {"t": {"url": "file:///etc/passwd"}}}, "body.mcp_servers.t.url"),
        ({"mcp_servers": {"t": {}}}, "body.mcp_servers.t"),
    ],
)
async def test_what_an_agent_cannot_have_is_refused_with_its_place(agents: Gateway, fields: JSON, place: str) -> None:
    answer = await agents.client.post("/api/agents", json={"name": "A", **fields})
    assert answer.status_code == 400, answer.text
    assert place in [error["place"] for error in answer.json()["errors"]]
    path = f"/api/agents/{(await made(agents))['id']}"
    assert (await agents.client.patch(path, json=fields)).status_code == 400


async def test_secrets_of_servers_are_not_shown_again_and_stay_where_a_change_does_not_name_them(
    agents: Gateway,
) -> None:
    agent = await made(agents, activate=True, mcp_servers={"tickets": SERVER})
    path = f"/api/agents/{agent['id']}"
    listed = await agents.client.get("/api/agents")
    read = await agents.client.get(path)
    assert "s3cret" not in read.text + listed.text
    shown = read.json()["mcp_servers"]
    assert shown["tickets"]["headers"] == {"Authorization": None}
    shown["tickets"] |= {"tools": None, "headers": {"Authorization": None, "X-New": "n3w"}}
    assert (await agents.client.patch(path, json={"mcp_servers": shown})).status_code == 200
    server = (await definition_of_run(agents, agent))["mcp_servers"]["tickets"]
    assert (server["headers"], server["tools"]) == ({**HEADERS, "X-New": "n3w"}, None)
    elsewhere = {"tickets": {"url": "https://thief.test/mcp", "headers": {"Authorization": None}}}
    refused = await agents.client.patch(path, json={"mcp_servers": elsewhere})
    assert refused.status_code == 400
    gone = await agents.client.patch(path, json={"mcp_servers": None, "permissions": None})
    assert (gone.json()["mcp_servers"], gone.json()["permissions"]) == ({}, None)


async def test_programs_are_servers_of_agents_where_the_operator_says_so(redis_url: str, tmp_path: Path) -> None:
    put_database(tmp_path)
    async with serving(settings_for(redis_url, tmp_path, mcp=McpSettings(agents_stdio=True))) as gateway:
        await tell(gateway)
        agent = await made(gateway, mcp_servers={"t": {"command": "/bin/sh", "env": {"TOKEN": "s3cret"}}})
        assert agent["mcp_servers"]["t"]["env"] == {"TOKEN": None}


async def test_remote_sandboxes_have_the_bounds_of_the_settings_alone(redis_url: str, tmp_path: Path) -> None:
    put_database(tmp_path)
    sandbox = SandboxSettings(provider="docker", network="open")
    async with serving(settings_for(redis_url, tmp_path, sandbox=sandbox)) as gateway:
        await tell(gateway)
        await made(gateway, sandbox={"provider": "docker", "network": "open"})
        for bounds in ({"network": "none"}, {"processes": 64}):
            answer = await gateway.client.post("/api/agents", json={"name": "A", "sandbox": bounds})
            assert (answer.status_code, "for s" in answer.text) == (400, True)
