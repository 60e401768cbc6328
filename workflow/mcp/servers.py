"""All MCP servers of the settings: asked for their tools by a worker until they answer, closed when it ends."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from shared.config import McpSettings
from shared.net.guard import Guard
from shared.tasks import cancel
from workflow.mcp.server import CallLost, CallRefused, McpServer
from workflow.tool.mcp import McpTool
from workflow.tool.registry import Registry

MOST_TOOLS = 200
"""Of one server: models are told of every one in each call. `tools` in its settings names those that are wanted."""
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0

log = logging.getLogger("trunkline.mcp")


class McpTools:
    """What the servers have told so far. `gives`: whether agents are given a tool of that name."""

    def __init__(
        self,
        servers: Sequence[McpServer] = (),
        *,
        connect_seconds: float = 0,
        gives: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.changed = asyncio.Event()
        """There are more than before. For whoever tells of them to clear."""
        self._servers = servers
        self._connect_seconds = connect_seconds
        self._gives = gives
        self._told: dict[str, list[McpTool]] = {}
        self._asking: list[asyncio.Task[None]] = []
        self._joined: tuple[Registry, Registry] | None = None

    @property
    def tools(self) -> list[McpTool]:
        """In the order of the settings."""
        return [tool for server in self._servers for tool in self._told.get(server.name, ())]

    def joined(self, own: Registry) -> Registry:
        """The worker's own tools, and those of the servers that agents are given."""
        if self._joined is None or self._joined[0] is not own:
            self._joined = own, own.plus(tool for tool in self.tools if self._gives(tool.name))
        return self._joined[1]

    async def open(self) -> None:
        """Asks each once. Those that do not answer in time are asked again from then on."""
        answered = await asyncio.gather(*(self._ask(server) for server in self._servers))
        away = [server for server, there in zip(self._servers, answered, strict=True) if not there]
        self._asking = [asyncio.create_task(self._ask_again(server)) for server in away]

    async def close(self) -> None:
        await cancel(self._asking)
        await asyncio.gather(*(server.close() for server in self._servers))

    async def _ask(self, server: McpServer, *, again: bool = False) -> bool:
        """Whether it answered."""
        try:
            found = await tools_of(server, self._connect_seconds)
        except (CallRefused, CallLost) as error:
            level = logging.DEBUG if again else logging.WARNING
            log.log(level, "MCP server %s: its tools are absent until it answers, because %s", server.name, error)
            return False
        log.info("MCP server %s: %s tools", server.name, len(found))
        self._told[server.name] = found
        self._joined = None
        return True

    async def _ask_again(self, server: McpServer) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            await asyncio.sleep(pause)
            if await self._ask(server, again=True):
                return self.changed.set()
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


@asynccontextmanager
async def open_mcp_tools(
    settings: McpSettings, guard: Guard, gives: Callable[[str], bool] = lambda _: True
) -> AsyncIterator[McpTools]:
    """Of all servers. Of those that do not answer in time a warning says why, and they are asked again."""
    seconds = {"connect_seconds": settings.connect_seconds, "call_seconds": settings.call_seconds}
    servers = [McpServer(name, server, guard, **seconds) for name, server in settings.servers.items()]
    tools = McpTools(servers, connect_seconds=settings.connect_seconds, gives=gives)
    try:
        await tools.open()
        yield tools
    finally:
        await tools.close()


async def tools_of(server: McpServer, seconds: float) -> list[McpTool]:
    """Raises CallRefused, CallLost: with the time that it took, if it took too long."""
    try:
        async with asyncio.timeout(seconds):
            listed = await server.tools()
    except TimeoutError as error:
        raise CallRefused(f"it did not tell its tools within {seconds:g} s") from error
    only = server.settings.tools
    tools: dict[str, McpTool] = {}
    for tool in (McpTool(server, each) for each in listed if only is None or each.name in only):
        tools.setdefault(tool.name, tool)
    if len(tools) > MOST_TOOLS:
        log.warning("MCP server %s: only the first %s of its %s tools", server.name, MOST_TOOLS, len(tools))
    return [*tools.values()][:MOST_TOOLS]
