"""Files in and out of a sandbox, as the program inside that moves them takes and gives them (sandboxd_transfer.py)."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

from pydantic import ValidationError

from workflow.sandbox import wire
from workflow.sandbox.base import SandboxLost, SandboxRefused
from workflow.sandbox.frames import Decoder, FrameError, encode
from workflow.sandbox.inside import raise_refusal

PIECE = 64 * 1024  # of a file, in a frame
BROKEN_OFF = "the sandbox broke off"


class Moving(Protocol):
    """The two ends of the program's line."""

    async def read(self) -> bytes:
        """What has come; empty at the end, however it came about."""

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError when nobody will ever read it."""


async def pass_in(moving: Moving, content: AsyncIterator[bytes]) -> None:
    """Returns early where the inside takes no more: it has answered."""
    try:
        async for piece in content:
            for start in range(0, len(piece), PIECE):
                await moving.write(encode({}, piece[start : start + PIECE]))
        await moving.write(encode({"done": True}))
    except ConnectionError:
        return


async def answer_of(frames: AsyncIterator[tuple[Any, bytes]], kind: type[wire.T]) -> wire.T:
    """What the first of them says. Raises SandboxError."""
    message, _ = await anext(frames, ({}, b""))
    if not message:
        raise SandboxLost(BROKEN_OFF)
    raise_refusal(message)
    try:
        return wire.adapter(kind).validate_python(message)
    except ValidationError as error:
        raise SandboxRefused("the sandbox gave an answer that makes no sense") from error


async def data_of(frames: AsyncIterator[tuple[Any, bytes]]) -> AsyncIterator[bytes]:
    """What comes after the answer. Raises SandboxLost where it breaks off."""
    async for message, data in frames:
        if data:
            yield data
        if "error" in message:
            break
        if message.get("done"):
            return
    raise SandboxLost(BROKEN_OFF)


async def frames_of(moving: Moving) -> AsyncIterator[tuple[Any, bytes]]:
    decoder = Decoder()
    while chunk := await moving.read():
        try:
            frames = decoder.feed(chunk)
        except FrameError as error:
            raise SandboxLost(f"the sandbox does not keep to the protocol: {error}") from error
        for frame in frames:
            yield frame
