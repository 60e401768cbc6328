"""The Connect protocol as envd speaks it, in JSON: unary calls and server streams."""

import asyncio
import contextlib
import json
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.support.e2b_double.box import BOX, Box
from tests.support.machines.machine import MachineError, MachineGone

STATUSES = {
    "invalid_argument": 400,
    "unauthenticated": 401,
    "not_found": 404,
    "already_exists": 409,
    "resource_exhausted": 429,
    "internal": 500,
    "unimplemented": 501,
    "unavailable": 503,
    "deadline_exceeded": 504,
}
CODES = {"ENOENT": "not_found", "ESRCH": "not_found", "EEXIST": "already_exists", "ENOSPC": "resource_exhausted"}
END_STREAM = 2
_ENVELOPE = struct.Struct(">BI")

Unary = Callable[[Box, Any], Awaitable[Any]]


class RpcError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def json(self) -> dict[str, str]:
        return {"code": self.code, "message": str(self)}


def as_rpc_error(error: RpcError | MachineError | MachineGone) -> RpcError:
    if isinstance(error, RpcError):
        return error
    if isinstance(error, MachineGone):
        return RpcError("unavailable", "the connection to sandbox ended before the stream completed")
    return RpcError(CODES.get(error.code, "internal"), str(error))


def unary(path: str, call: Unary) -> web.RouteDef:
    async def handle(request: web.Request) -> web.Response:
        try:
            return web.json_response(await call(request[BOX], await request.json()))
        except (RpcError, MachineError, MachineGone) as error:
            return _refused(as_rpc_error(error))

    return web.post(path, handle)


def unserved(path: str) -> web.RouteDef:
    async def handle(_: web.Request) -> web.Response:
        return _refused(RpcError("unimplemented", f"{path} is not served by the double"))

    return web.post(path, handle)


def _refused(error: RpcError) -> web.Response:
    return web.json_response(error.json(), status=STATUSES[error.code])


class Stream:
    """A server stream; keepalive events go out when nothing else did for as long as the client asked for."""

    def __init__(self, response: web.StreamResponse, keepalive_seconds: float | None) -> None:
        self.response = response
        self._keepalive_seconds = keepalive_seconds
        self._sent = asyncio.Event()

    async def event(self, **event: Any) -> None:
        self._sent.set()
        await self._envelope(0, {"event": event})

    async def end(self, error: RpcError | None = None) -> None:
        await self._envelope(END_STREAM, {"error": error.json()} if error else {})

    async def keep_alive(self) -> None:
        """Until the client is gone."""
        with contextlib.suppress(ConnectionError):
            await self._keep_alive()

    async def _keep_alive(self) -> None:
        while self._keepalive_seconds:
            self._sent.clear()
            try:
                async with asyncio.timeout(self._keepalive_seconds):
                    await self._sent.wait()
            except TimeoutError:
                await self.event(keepalive={})

    async def _envelope(self, flags: int, message: Any) -> None:
        data = json.dumps(message).encode()
        await self.response.write(_ENVELOPE.pack(flags, len(data)) + data)


async def open_stream(request: web.Request) -> tuple[Any, Stream]:
    """The one message that the client sends, and the way to answer it."""
    body = await request.read()
    _, length = _ENVELOPE.unpack_from(body)
    response = web.StreamResponse(headers={"Content-Type": "application/connect+json"})
    await response.prepare(request)
    interval = request.headers.get("Keepalive-Ping-Interval")
    return json.loads(body[_ENVELOPE.size : _ENVELOPE.size + length]), Stream(
        response, float(interval) if interval else None
    )
