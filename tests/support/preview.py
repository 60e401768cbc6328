"""From a double's HTTP port to a port inside one of its machines: HTTP and WebSocket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import aiohttp
from aiohttp import web

from tests.support.machines.machine import Machine, MachineError, MachineGone, dial

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}
WS_HANDSHAKE = "sec-websocket-"
PIECE = 64 * 1024


async def is_open(machine: Machine, port: int) -> bool:
    try:
        _, writer = await dial(machine, port)
    except (MachineError, MachineGone):
        return False
    writer.close()
    return True


async def proxy(request: web.Request, machine: Machine, port: int, path: str) -> web.StreamResponse:
    """The answer of what listens on `port` inside to this request, made for `path` (with its query)."""
    async with _forwarded(machine, port) as address, aiohttp.ClientSession(auto_decompress=False) as session:
        url = f"{address}{path}"
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await _proxy_websocket(request, session, url)
        headers = _passed_on(request.headers)
        body = request.content.iter_any() if request.can_read_body else None
        async with session.request(request.method, url, headers=headers, data=body, allow_redirects=False) as answer:
            response = web.StreamResponse(status=answer.status, headers=_passed_on(answer.headers))
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            return response


async def _proxy_websocket(request: web.Request, session: aiohttp.ClientSession, url: str) -> web.StreamResponse:
    outer = web.WebSocketResponse()
    await outer.prepare(request)
    async with session.ws_connect(url, headers=_passed_on(request.headers)) as inner, asyncio.TaskGroup() as tasks:
        tasks.create_task(_pass_messages(outer, inner))
        tasks.create_task(_pass_messages(inner, outer))
    return outer


async def _pass_messages(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    target: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await target.send_bytes(message.data)
    await target.close()


def _passed_on(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [
        (name, value)
        for name, value in headers.items()
        if name.lower() not in HOP_BY_HOP and not name.lower().startswith(WS_HANDSHAKE)
    ]


@contextlib.asynccontextmanager
async def _forwarded(machine: Machine, port: int) -> AsyncIterator[str]:
    """An address on this machine whose connections end at `port` inside."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await dial(machine, port)
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await source.read(PIECE):
            target.write(piece)
            await target.drain()
    target.close()
