"""A connection to a port of a sandbox, as one HTTP exchange whose two bodies flow at the same time (wire.py)."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from workflow.sandbox import wire
from workflow.sandbox.ways import Stream

Dial = Callable[[str, int], AbstractAsyncContextManager[tuple[Stream, Mapping[str, str]]]]
"""To a port of a thread's sandbox: the connection, and the headers that HTTP requests over it must bear (ways.py).
Raises SandboxError.
"""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The endpoint. Raises SandboxError before its answer begins."""

    dial: Dial

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = Request(scope).path_params
        async with self.dial(path["thread_id"], path["port"]) as (stream, own):
            headers = [(b"content-type", b"application/octet-stream")]
            if own:
                headers.append((wire.PORT_HEADERS.encode(), json.dumps(dict(own)).encode()))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await relay(stream, receive, send)


async def relay(stream: Stream, receive: Receive, send: Send) -> None:
    """Until the inside has ended, or the client is gone."""
    inward = asyncio.create_task(_inward(stream, receive))
    outward = asyncio.create_task(_outward(stream, send))
    try:
        await asyncio.wait([inward, outward], return_when=asyncio.FIRST_COMPLETED)
        if not inward.done() or inward.result():
            await outward
    finally:
        for task in (inward, outward):
            task.cancel()
        await asyncio.wait([inward, outward])


async def _inward(stream: Stream, receive: Receive) -> bool:
    """Whether the client is still there, now that it has sent all it wanted."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return False
        with contextlib.suppress(OSError):  # the inside has ended: _outward finds out
            await stream.write(message.get("body", b""))
        if not message.get("more_body", False):
            stream.end()
            return True


async def _outward(stream: Stream, send: Send) -> None:
    while piece := await stream.read():
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
