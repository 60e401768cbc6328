"""All MCP servers of the settings: asked for their tools when a worker starts, closed when it ends."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.config import McpSettings
from shared.net.guard import Guard
from workflow.mcp.server import CallLost, CallRefused, McpServer
from workflow.tool.mcp import McpTool

log = logging.getLogger("trunkline.mcp")


@asynccontextmanager
async def open_mcp_tools(settings: McpSettings, guard: Guard) -> AsyncIterator[list[McpTool]]:
    """The tools of all servers that answer in time; of the others a warning says why theirs are absent."""
    seconds = {"connect_seconds": settings.connect_seconds, "call_seconds": settings.call_seconds}
    servers = [McpServer(name, server, guard, **seconds) for name, server in settings.servers.items()]
    try:
        found = await asyncio.gather(*(_tools(server, settings.connect_seconds) for server in servers))
        yield [tool for tools in found for tool in tools]
    finally:
        await asyncio.gather(*(server.close() for server in servers))


async def _tools(server: McpServer, seconds: float) -> list[McpTool]:
    try:
        async with asyncio.timeout(seconds):
            listed = await server.tools()
    except (CallRefused, CallLost, TimeoutError) as error:
        why = str(error) or f"it did not tell its tools within {seconds:g} s"
        log.warning("MCP server %s: its tools are absent, because %s", server.name, why)
        return []
    only = server.settings.tools
    tools: dict[str, McpTool] = {}
    for tool in (McpTool(server, each) for each in listed if only is None or each.name in only):
        tools.setdefault(tool.name, tool)
    log.info("MCP server %s: %s tools", server.name, len(tools))
    return [*tools.values()]
