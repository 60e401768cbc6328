"""Files in and out of a sandbox over HTTP, as long as they may be: nothing is held here but a piece of them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from shared.types import JSON
from workflow.sandbox import wire
from workflow.sandbox.base import SandboxRefused
from workflow.sandbox.framed import Moving, answer_of, data_of, frames_of, pass_in

MAX_HEAD_BYTES = 64 * 1024

Begin = Callable[[str, JSON], AbstractAsyncContextManager[Moving]]
"""Of a thread's sandbox, for what is asked: the line to the program that moves files. Raises SandboxError."""


@dataclass(frozen=True, slots=True)
class Transfers:
    """The endpoints. They raise SandboxError before an answer begins; one that has begun is cut."""

    begin: Begin

    async def outgoing(self, request: Request) -> Response:
        asked = wire.adapter(wire.Outgoing).validate_json(await request.body())
        async with AsyncExitStack() as stack:
            moving = await stack.enter_async_context(self.begin(request.path_params["thread_id"], asdict(asked)))
            frames = frames_of(moving)
            head = wire.encode(await answer_of(frames, wire.OutgoingHead)) + b"\n"
            return StreamingResponse(_body(head, frames, stack.pop_all()), media_type="application/octet-stream")

    async def incoming(self, request: Request) -> Response:
        body = request.stream()
        line, rest = await _first_line(body)
        asked = wire.adapter(wire.Incoming).validate_json(line)
        async with self.begin(request.path_params["thread_id"], asdict(asked)) as moving:
            try:
                await pass_in(moving, _after(rest, body))
            except ClientDisconnect as gone:
                raise SandboxRefused("the request broke off") from gone
            told: Any = await answer_of(frames_of(moving), dict)
        return Response(wire.encode(told), media_type="application/json")


async def _body(head: bytes, frames: AsyncIterator[tuple[Any, bytes]], held: AsyncExitStack) -> AsyncIterator[bytes]:
    async with held:
        yield head
        async for piece in data_of(frames):
            yield piece


async def _after(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece


async def _first_line(body: AsyncIterator[bytes]) -> tuple[bytes, bytes]:
    line = b""
    async for piece in body:
        line += piece
        if b"\n" in line:
            head, _, rest = line.partition(b"\n")
            return head, rest
        if len(line) > MAX_HEAD_BYTES:
            break
    raise SandboxRefused("the request does not begin with a line of JSON")
