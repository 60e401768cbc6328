"""A connection to a port of a sandbox, as one HTTP exchange whose two bodies flow at the same time (wire.py)."""

import asyncio
import contextlib
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from workflow.sandbox.handed import Handed
from workflow.sandbox.sandboxes import Sandboxes


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The endpoint. Raises SandboxError before its answer begins."""

    sandboxes: Sandboxes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = Request(scope).path_params
        async with self.sandboxes.get(path["thread_id"]).dial(path["port"]) as handed:
            head = {"type": "http.response.start", "status": 200}
            await send({**head, "headers": [(b"content-type", b"application/octet-stream")]})
            await relay(handed, receive, send)


async def relay(handed: Handed, receive: Receive, send: Send) -> None:
    """Until the inside has ended, or the client is gone."""
    inward = asyncio.create_task(_inward(handed, receive))
    outward = asyncio.create_task(_outward(handed, send))
    try:
        await asyncio.wait([inward, outward], return_when=asyncio.FIRST_COMPLETED)
        if not inward.done() or inward.result():
            await outward
    finally:
        for task in (inward, outward):
            task.cancel()
        await asyncio.wait([inward, outward])


async def _inward(handed: Handed, receive: Receive) -> bool:
    """Whether the client is still there, now that it has sent all it wanted."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return False
        with contextlib.suppress(OSError):  # the inside has ended: _outward finds out
            await handed.write(message.get("body", b""))
        if not message.get("more_body", False):
            handed.end()
            return True


async def _outward(handed: Handed, send: Send) -> None:
    while piece := await handed.read():
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
