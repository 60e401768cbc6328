"""Files in and out of a sandbox over HTTP, as long as they may be: nothing is held here but a piece of them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from workflow.sandbox import wire
from workflow.sandbox.base import SandboxLost, SandboxRefused
from workflow.sandbox.frames import Decoder, FrameError, encode
from workflow.sandbox.handed import PIECE, Handed
from workflow.sandbox.inside import raise_refusal
from workflow.sandbox.sandboxes import Sandboxes

MAX_HEAD_BYTES = 64 * 1024
BROKEN_OFF = "the sandbox broke off"


@dataclass(frozen=True, slots=True)
class Transfers:
    """The endpoints. They raise SandboxError before an answer begins; one that has begun is cut."""

    sandboxes: Sandboxes

    async def outgoing(self, request: Request) -> Response:
        asked = wire.adapter(wire.Outgoing).validate_json(await request.body())
        sandbox = self.sandboxes.get(request.path_params["thread_id"])
        async with AsyncExitStack() as stack:
            handed = await stack.enter_async_context(sandbox.transfer(asdict(asked)))
            frames = _frames(handed)
            head = wire.encode(await _answer(frames, wire.OutgoingHead)) + b"\n"
            return StreamingResponse(_body(head, frames, stack.pop_all()), media_type="application/octet-stream")

    async def incoming(self, request: Request) -> Response:
        body = request.stream()
        line, rest = await _first_line(body)
        asked = wire.adapter(wire.Incoming).validate_json(line)
        sandbox = self.sandboxes.get(request.path_params["thread_id"])
        async with sandbox.transfer(asdict(asked)) as handed:
            await _pass_in(handed, rest, body)
            told: Any = await _answer(_frames(handed), dict)
        if asked.op == "fill":
            sandbox.settle()
        return Response(wire.encode(told), media_type="application/json")


async def _pass_in(handed: Handed, rest: bytes, body: AsyncIterator[bytes]) -> None:
    """Returns early where the inside takes no more: it has answered."""
    try:
        await _pass(handed, rest)
        async for piece in body:
            await _pass(handed, piece)
        await handed.write(encode({"done": True}))
    except ConnectionError:
        return
    except ClientDisconnect as gone:
        raise SandboxRefused("the request broke off") from gone


async def _pass(handed: Handed, data: bytes) -> None:
    for start in range(0, len(data), PIECE):
        await handed.write(encode({}, data[start : start + PIECE]))


async def _body(head: bytes, frames: AsyncIterator[tuple[Any, bytes]], held: AsyncExitStack) -> AsyncIterator[bytes]:
    async with held:
        yield head
        async for message, data in frames:
            if data:
                yield data
            if "error" in message:
                break
            if message.get("done"):
                return
    raise SandboxLost(BROKEN_OFF)


async def _answer(frames: AsyncIterator[tuple[Any, bytes]], kind: type[wire.T]) -> wire.T:
    message, _ = await anext(frames, ({}, b""))
    if not message:
        raise SandboxLost(BROKEN_OFF)
    raise_refusal(message)
    try:
        return wire.adapter(kind).validate_python(message)
    except ValidationError as error:
        raise SandboxRefused("the sandbox gave an answer that makes no sense") from error


async def _frames(handed: Handed) -> AsyncIterator[tuple[Any, bytes]]:
    decoder = Decoder()
    while chunk := await handed.read():
        try:
            frames = decoder.feed(chunk)
        except FrameError as error:
            raise SandboxLost(f"the sandbox does not keep to the protocol: {error}") from error
        for frame in frames:
            yield frame


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
