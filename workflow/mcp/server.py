"""One MCP server, as a worker keeps it: connected when it is first needed, and anew when the connection has ended.

The SDK's connection belongs to the task that opened it, so each has a task of its own; calls come from any task.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import anyio
from mcp import Client, MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INVALID_REQUEST,
    PARSE_ERROR,
    REQUEST_TIMEOUT,
    CallToolResult,
    Implementation,
    Tool,
)
from pydantic import ValidationError

from shared.config import McpServerSettings
from shared.net.guard import Guard
from shared.types import JSON
from shared.version import VERSION
from workflow.mcp.transport import open_streams

CLOSE_SECONDS = 10.0
PAGES = 20
ERROR_CHARS = 2_000

log = logging.getLogger("trunkline.mcp")


class CallRefused(Exception):
    """The call had no effect, or the server says itself what became of it. The text says why."""


class CallLost(Exception):
    """The call was sent, and no answer came that can be read. The text says why."""


@dataclass(slots=True)
class _Connection:
    client: Client
    task: asyncio.Task[None]
    stop: asyncio.Event


class McpServer:
    """All methods belong to one event loop."""

    def __init__(
        self, name: str, settings: McpServerSettings, guard: Guard, *, connect_seconds: float, call_seconds: float
    ) -> None:
        self.name = name
        self.settings = settings
        self._guard = guard
        self._connect_seconds = connect_seconds
        self._call_seconds = settings.call_seconds or call_seconds
        self._connecting = asyncio.Lock()
        self._connection: _Connection | None = None

    async def tools(self) -> list[Tool]:
        """Raises CallRefused, CallLost."""
        found: list[Tool] = []
        cursor = None
        async with self._connected() as client:
            for _ in range(PAGES):
                page = await client.list_tools(cursor=cursor)
                found += page.tools
                if (cursor := page.next_cursor) is None:
                    break
        return found

    async def call(self, tool: str, arguments: JSON) -> CallToolResult:
        """Raises CallRefused, CallLost."""
        async with self._connected() as client:
            return await client.call_tool(tool, arguments, read_timeout_seconds=self._call_seconds)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.stop.set()
            await asyncio.wait([connection.task], timeout=CLOSE_SECONDS)
            await _end(connection.task)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        """Turns what can go wrong with a request into CallRefused and CallLost."""
        connection = await self._open()
        try:
            yield connection.client
        except MCPError as error:
            if error.code == REQUEST_TIMEOUT:
                raise CallLost(f"it did not answer within {self._call_seconds:g} s") from error
            if error.code == INVALID_REQUEST and error.message == "Session terminated":
                await self.close()  # the server has forgotten us, and done nothing
                raise CallRefused("it has ended the session: call again") from error
            if error.code == PARSE_ERROR:
                raise CallLost(f"its answer cannot be read: {error.message[:ERROR_CHARS]}") from error
            if error.code == CONNECTION_CLOSED:
                raise CallLost("the connection broke") from error
            raise CallRefused(f"it answers with an error: {error.message[:ERROR_CHARS]}") from error
        except ValidationError as error:
            raise CallLost(f"its answer is not as MCP says: {str(error)[:ERROR_CHARS]}") from error

    async def _open(self) -> _Connection:
        async with self._connecting:
            if self._connection is not None and self._connection.stop.is_set():
                await self.close()
            if self._connection is None:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> _Connection:
        ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        task = asyncio.create_task(self._hold(ready, stop))
        task.add_done_callback(lambda _: stop.set())
        either: list[asyncio.Future[Any]] = [ready, task]
        try:
            await asyncio.wait(either, timeout=self._connect_seconds, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await _end(task)
            raise
        if ready.done():
            task.add_done_callback(self._note_end)
            return _Connection(ready.result(), task, stop)
        if not task.done():
            await _end(task)
            raise CallRefused(f"it did not start within {self._connect_seconds:g} s")
        raise CallRefused(f"it cannot be reached: {_words(task.exception())}")

    def _note_end(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if self._connection is not None and self._connection.task is task:
            log.warning("MCP server %s: the connection ended%s", self.name, f": {_words(error)}" if error else "")

    async def _hold(self, ready: asyncio.Future[Client], stop: asyncio.Event) -> None:
        """The connection's whole life; it ends when it is told to, or when the server goes."""

        @asynccontextmanager
        async def watched() -> AsyncIterator[tuple[Any, Any]]:
            async with open_streams(self.settings, self._guard) as (read, write):
                yield _Watched(read, stop), write

        info = Implementation(name="trunkline", version=VERSION)
        async with Client(watched(), client_info=info, cache=None) as client:
            ready.set_result(client)
            await stop.wait()


class _Watched:
    """A stream of messages that tells when it has ended: a call that begins after that needs a new connection."""

    def __init__(self, stream: Any, ended: asyncio.Event) -> None:
        self._stream = stream
        self._ended = ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def receive(self) -> Any:
        try:
            return await self._stream.receive()
        except BaseException:  # whatever ends it; those who wait for an answer are told after this
            self._ended.set()
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        left: bool | None = await self._stream.__aexit__(kind, error, trace)
        return left


async def _end(task: asyncio.Task[None]) -> None:
    """Asks once: the SDK takes its time to stop a process, and another request would break that off."""
    task.cancel()
    await asyncio.wait([task], timeout=CLOSE_SECONDS)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    elif error is not None:
        yield error


def _words(error: BaseException | None) -> str:
    return "; ".join(str(cause) or type(cause).__name__ for cause in _causes(error))[:300]
