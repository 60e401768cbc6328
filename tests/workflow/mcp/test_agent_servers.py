"""MCP servers of an agent's own: its runs have their tools, and nobody else's."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.config import McpSettings, Settings, ToolsSettings
from shared.events.outside import Outside
from shared.net.guard import Guard
from shared.types import JSON, RunStatus
from tests.workflow.agent.support import execute, new_thread, submit
from tests.workflow.mcp.test_mcp import NAMES, SERVER, kept_server
from tests.workflow.support import Playbook, a_runtime, outside, turn
from workflow.runtime import Runtime
from workflow.tool.workspace import WorkspaceTools

ADD = [turn("", ("c1", "mcp__t__add", '{"a": 1}')), turn("Done.")]


@pytest.fixture
def out(client: Redis) -> Outside:
    return outside(client)


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    async with kept_server(tmp_path) as port:
        yield port


class Noting(Playbook):
    """Keeps what it is told of tools."""

    tools: list[str]

    async def stream(self, request: Any) -> Any:
        self.tools = [tool["function"]["name"] for tool in request.tools]
        async for item in super().stream(request):
            yield item


def runtime_of(model: Any, client: Redis, guard: Guard, **tools: Any) -> Runtime:
    settings = Settings(mcp=McpSettings(connect_seconds=20), tools=ToolsSettings(**tools))
    return replace(a_runtime(model, client=client), workspace_tools=WorkspaceTools(settings, guard))


def having(port: int, **parameters: Any) -> JSON:
    return {"parameters": parameters, "mcp_servers": {"t": {"url": f"http://127.0.0.1:{port}/mcp"}}}


async def test_a_run_has_the_tools_of_its_agents_servers_beside_those_that_it_names(
    out: Outside, client: Redis, port: int, tmp_path: Path
) -> None:
    model = Noting(ADD)
    runtime = runtime_of(model, client, Guard(private_hosts=[f"127.0.0.1:{port}"]), disabled=["mcp__t__put"])
    run_id = await submit(out, await new_thread(out), definition=having(port, tools=["look"]))
    run = await execute(out, runtime, run_id)
    assert run.status is RunStatus.SUCCEEDED
    assert model.tools == ["look", *(f"mcp__t__{name}" for name in NAMES if name != "put")]
    [said] = [each["content"] for each in await out.store.messages(run.thread_id) if each["role"] == "tool"]
    assert "\n2\n" in said
    assert (tmp_path / "calls").read_text() == "add\n"


async def test_a_request_may_name_fewer_of_them(out: Outside, client: Redis, port: int) -> None:
    model = Noting(ADD)
    runtime = runtime_of(model, client, Guard(private_hosts=[f"127.0.0.1:{port}"]))
    parameters = {"tools": ["mcp__t__add"]}
    run_id = await submit(out, await new_thread(out), definition=having(port), parameters=parameters)
    assert (await execute(out, runtime, run_id)).status is RunStatus.SUCCEEDED
    assert model.tools == ["mcp__t__add"]


async def test_a_server_that_may_not_be_reached_costs_its_tools_alone(
    out: Outside, client: Redis, port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Noting([turn("Done.")])
    run_id = await submit(out, await new_thread(out), definition=having(port, tools=["look"]))
    assert (await execute(out, runtime_of(model, client, Guard(ports=[port])), run_id)).status is RunStatus.SUCCEEDED
    assert model.tools == ["look"]
    assert "not on the public internet" in caplog.text


async def test_a_command_is_started_only_where_the_operator_lets_agents_name_some(
    out: Outside, client: Redis, tmp_path: Path
) -> None:
    marker = tmp_path / "started"
    servers = {"t": {"command": "/bin/sh", "args": ["-c", f"touch {marker}; exec cat {SERVER}"]}}
    run_id = await submit(out, await new_thread(out), definition={"parameters": {}, "mcp_servers": servers})
    run = await execute(out, runtime_of(Noting(ADD), client, Guard()), run_id)
    assert run.status is RunStatus.FAILED
    assert "mcp.agents_stdio" in (run.error or {})["detail"]
    assert not marker.exists()
