"""An MCP server that is a program: a line of JSON a message, over its pipes.

In place of the SDK's own, which reads on for as long as a line goes on: a server could fill the worker's memory.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

GRACE_SECONDS = 2.0
"""After its input is closed, and again after SIGTERM."""

log = logging.getLogger("trunkline.mcp")

Message = SessionMessage | Exception


@asynccontextmanager
async def pipe_streams(
    command: str, args: Sequence[str], env: Mapping[str, str], *, line_bytes: int
) -> AsyncIterator[tuple[Any, Any]]:
    """The program's streams, until its input ends, or a line of its output is longer than `line_bytes`.

    Raises OSError where it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        command,
        *args,
        env={**get_default_environment(), **env},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=line_bytes,
        start_new_session=True,
    )
    assert process.stdin
    assert process.stdout
    to_us, incoming = anyio.create_memory_object_stream[Message](0)
    outgoing, to_it = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as group:
        group.start_soon(_read, process.stdout, to_us, line_bytes)
        group.start_soon(_write, process.stdin, to_it, to_us)
        try:
            yield incoming, outgoing
        finally:
            with anyio.CancelScope(shield=True):
                await _stop(process)
            group.cancel_scope.cancel()
            for stream in (to_us, incoming, outgoing, to_it):
                stream.close()


async def _read(output: asyncio.StreamReader, to_us: MemoryObjectSendStream[Message], line_bytes: int) -> None:
    """Then on to the end of the output, which is thrown away: a full pipe would keep the program from ending."""
    with contextlib.suppress(OSError):
        async with to_us:
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                while line := await _line(output, line_bytes):
                    await to_us.send(_parsed(line))
        while await output.read(line_bytes):
            pass


async def _line(output: asyncio.StreamReader, line_bytes: int) -> bytes:
    """Nothing at the end, and where no end of the line is to be seen."""
    try:
        return await output.readline()
    except ValueError:
        log.warning("an MCP server wrote a line of more than %s bytes: the connection is ended", f"{line_bytes:,}")
        return b""


def _parsed(line: bytes) -> Message:
    """What is no message is the session's to tell of."""
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        log.warning("an MCP server wrote what is no message: %s", str(error)[:300])
        return error


async def _write(
    input: asyncio.StreamWriter,
    to_it: MemoryObjectReceiveStream[SessionMessage],
    to_us: MemoryObjectSendStream[Message],
) -> None:
    try:
        async with to_it:
            async for message in to_it:
                input.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                await input.drain()
    except OSError:
        to_us.close()  # it reads no more: who waits for its answer must not wait for ever


async def _stop(process: asyncio.subprocess.Process) -> None:
    """With all that it has started in its session. As MCP says: first its input ends."""
    assert process.stdin
    process.stdin.close()
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                await process.wait()
                return
    log.warning("MCP server process %s does not end", process.pid)
