"""All MCP servers of the settings: asked for their tools when a worker starts, closed when it ends."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.config import McpSettings
from shared.net.guard import Guard
from workflow.mcp.server import CallLost, CallRefused, McpServer
from workflow.tool.mcp import McpTool

MOST_TOOLS = 200
"""Of one server: models are told of every one in each call. `tools` in its settings names those that are wanted."""

log = logging.getLogger("trunkline.mcp")


@asynccontextmanager
async def open_mcp_tools(settings: McpSettings, guard: Guard) -> AsyncIterator[list[McpTool]]:
    """The tools of all servers that answer in time; of the others a warning says why theirs are absent."""
    seconds = {"connect_seconds": settings.connect_seconds, "call_seconds": settings.call_seconds}
    servers = [McpServer(name, server, guard, **seconds) for name, server in settings.servers.items()]
    try:
        found = await asyncio.gather(*(tools_of(server, settings.connect_seconds) for server in servers))
        yield [tool for tools in found for tool in tools]
    finally:
        await asyncio.gather(*(server.close() for server in servers))


async def tools_of(server: McpServer, seconds: float) -> list[McpTool]:
    """None of a server that does not tell them in time; a warning says why."""
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
    if len(tools) > MOST_TOOLS:
        log.warning("MCP server %s: only the first %s of its %s tools", server.name, MOST_TOOLS, len(tools))
    log.info("MCP server %s: %s tools", server.name, min(len(tools), MOST_TOOLS))
    return [*tools.values()][:MOST_TOOLS]
