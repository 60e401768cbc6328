"""Tools of a workspace, made for one run of the rows that it carries.

They get nothing of the installation but the functions that it offers: no secret, and no server that is its own.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import mcp_types
from pydantic import SecretStr

from shared.config import McpServerSettings, McpSettings, Settings, ToolDefinition
from shared.config.tools import FunctionCall, HttpCall
from shared.errors import AppError, ErrorCode
from shared.net.guard import Guard
from shared.tool_rules import McpCall, call_of, variables_of
from shared.types import JSON
from workflow.mcp.server import CallLost, CallRefused, McpServer
from workflow.mcp.servers import tools_of
from workflow.tool.base import Effect, Tool, ToolContext, ToolResult
from workflow.tool.defined import OUTPUT, function_of
from workflow.tool.function_tool import FunctionTool
from workflow.tool.http_tool import HttpTool
from workflow.tool.json_schema import faults, plain_part
from workflow.tool.mcp import McpTool
from workflow.tool.schema_tool import GivenArgs, SchemaTool
from workflow.tool.threads import Threads
from workflow.web.web import Web

log = logging.getLogger("trunkline.mcp")

DEFINED = ("type", "description", "config", "input_schema", "output_schema", "effect", "timeout_seconds")


class WorkspaceHttpTool(HttpTool):
    trusted = False

    def guard(self, web: Web) -> Guard:
        return web.workspaces


class WorkspaceFunctionTool(FunctionTool):
    trusted = False


class WorkspaceMcpTool(McpTool):
    """One tool of a server, connected to for each call: nothing is kept of a server that a workspace named."""

    def __init__(self, row: JSON, call: McpCall, guard: Guard, settings: McpSettings) -> None:
        effect = Effect(row["effect"])
        asks = effect is Effect.NONE
        SchemaTool.__init__(
            self, row["name"], row["description"], row["input_schema"], effect, asks_when_unknown=asks, trusted=False
        )
        headers = {name: SecretStr(value) for name, value in call.headers.items()}
        server = McpServerSettings(url=call.url, headers=headers, call_seconds=row["timeout_seconds"])
        seconds = {"connect_seconds": settings.connect_seconds, "call_seconds": settings.call_seconds}
        self._connection = partial(McpServer, self.name, server, guard, **seconds)
        self._server = self._connection()
        self._remote = call.tool
        self._output = row["output_schema"] and plain_part(row["output_schema"])

    async def _call(self, args: GivenArgs) -> mcp_types.CallToolResult:
        server = self._connection()
        try:
            return await server.call(self._remote, args.fields)
        finally:
            await server.close()

    def _result(self, found: mcp_types.CallToolResult, ctx: ToolContext) -> ToolResult:
        result = super()._result(found, ctx)
        if not (self._output and result.ok):
            return result
        data = self._data | {OUTPUT: found.structured_content}
        if wrong := faults(self._output, found.structured_content, (OUTPUT,)):
            what = f"{self.name} was called and answered, but its structured content is not as its output schema says:"
            return ToolResult.error("invalid_output", "\n".join([what, *wrong, "", result.content]), data)
        return replace(result, data=data)


class WorkspaceTools:
    """`guard`: where they may go."""

    def __init__(self, settings: Settings, guard: Guard) -> None:
        self._tools = settings.tools
        self._mcp = settings.mcp
        self._guard = guard
        self._threads = Threads(settings.tools.function_threads)

    def made(self, rows: Sequence[JSON]) -> list[Tool[Any]]:
        """Those that are not disabled. Raises AppError INVALID_REQUEST for one that cannot be made."""
        return [self._made(row) for row in rows if not self._tools.disables(row["name"])]

    @asynccontextmanager
    async def of_servers(self, servers: JSON) -> AsyncIterator[list[McpTool]]:
        """The tools of an agent's own MCP servers, connected to meanwhile. One that is away costs its tools alone."""
        opened = [self._server(name, server) for name, server in servers.items()]
        try:
            found = await asyncio.gather(*(self._told(server) for server in opened))
            yield [tool for tools in found for tool in tools if not self._tools.disables(tool.name)]
        finally:
            await asyncio.gather(*(server.close() for server in opened))

    def _server(self, name: str, row: JSON) -> McpServer:
        """Raises AppError INVALID_REQUEST for a program that agents may not name (any more)."""
        server = McpServerSettings.model_validate(row)
        if server.command is not None and not self._mcp.agents_stdio:
            detail = f"The agent's MCP server {name} is a command, and agents may name none (mcp.agents_stdio)."
            raise AppError(ErrorCode.INVALID_REQUEST, detail)
        seconds = {"connect_seconds": self._mcp.connect_seconds, "call_seconds": self._mcp.call_seconds}
        return McpServer(name, server, self._guard, **seconds)

    async def _told(self, server: McpServer) -> list[McpTool]:
        try:
            return await tools_of(server, self._mcp.connect_seconds)
        except (CallRefused, CallLost) as error:
            log.warning("an agent's MCP server %s: its tools are absent, because %s", server.name, error)
            return []

    def _made(self, row: JSON) -> Tool[Any]:
        try:
            call = call_of(row["type"], row["config"])
            if named := variables_of(call):
                raise _wrong(row, f"it names ${{{named[0]}}}, and gets no secrets")
            if isinstance(call, McpCall):
                return WorkspaceMcpTool(row, call, self._guard, self._mcp)
            definition = ToolDefinition.model_validate({name: row[name] for name in DEFINED} | {"config": call})
            if isinstance(call, HttpCall):
                return WorkspaceHttpTool(row["name"], definition, call, {})
            assert isinstance(call, FunctionCall)
            function = function_of(call, self._tools)
        except ValueError as error:  # pydantic's too
            raise _wrong(row, str(error)) from error
        return WorkspaceFunctionTool(row["name"], definition, function, self._threads)


def _wrong(row: JSON, why: str) -> AppError:
    return AppError(ErrorCode.INVALID_REQUEST, f"The workspace's tool {row['name']} cannot be used: {why}.")
