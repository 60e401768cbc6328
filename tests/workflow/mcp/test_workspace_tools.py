"""One tool of an MCP server as a tool of a workspace, over streamable HTTP."""

import asyncio
from pathlib import Path
from typing import Any

from shared.config import McpSettings, Settings
from shared.net.guard import Guard
from shared.types import JSON
from tests.workflow.mcp.test_mcp import kept_server
from tests.workflow.web.support import a_context, call
from workflow.tool.base import Tool
from workflow.tool.workspace import WorkspaceTools

NUMBERS: JSON = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def made(port: int, tool: str, guard: Guard, **fields: Any) -> Tool[Any]:
    row = {"id": "i", "version": 1, "name": "sum", "type": "mcp", "description": "Adds.", "input_schema": NUMBERS}
    row |= {"config": {"url": f"http://127.0.0.1:{port}/mcp", "tool": tool}, "output_schema": None}
    row |= {"effect": "repeatable", "timeout_seconds": 20, **fields}
    settings = Settings(mcp=McpSettings(connect_seconds=20))
    [made] = WorkspaceTools(settings, guard).made([row])
    return made


async def test_it_is_called_under_its_own_name_with_its_own_schemas(tmp_path: Path) -> None:
    async with kept_server(tmp_path) as port:
        guard = Guard(private_hosts=[f"127.0.0.1:{port}"])
        tool = made(port, "add", guard)
        found = await asyncio.gather(*(call(tool, a_context(), a=number) for number in (1, 2)))
        assert ["2" in found[0].content, "3" in found[1].content] == [True, True]
        assert 'source="MCP server sum"' in found[0].content
        assert (await call(tool, a_context(), a="one")).error_code == "invalid_arguments"
        of_text = {"type": "object", "properties": {"result": {"type": "string"}}, "required": ["result"]}
        fits = await call(made(port, "add", guard, output_schema=of_text), a_context(), a=1)
        assert (fits.ok, fits.data["output"]) == (True, {"result": "2"})
        of_number = {"type": "object", "properties": {"result": {"type": "integer"}}}
        not_so = await call(made(port, "add", guard, output_schema=of_number), a_context(), a=1)
        assert (not_so.error_code, "output.result" in not_so.content) == ("invalid_output", True)


async def test_it_reaches_only_what_tools_of_workspaces_may(tmp_path: Path) -> None:
    async with kept_server(tmp_path) as port:
        refused = await call(made(port, "add", Guard()), a_context(), a=1)
        assert (refused.ok, refused.error_code) == (False, "mcp_error")
    assert not (tmp_path / "calls").exists()
