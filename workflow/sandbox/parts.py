"""Long transfers with a remote machine, from this side: what goes in and comes out in parts (sandboxd_parts.py)."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from workflow.sandbox.base import SandboxError, SandboxLost
from workflow.sandbox.framed import BROKEN_OFF
from workflow.sandbox.line import Line
from workflow.sandbox.machine import MachineGone
from workflow.sandbox.sandboxd_parts import PART_BYTES

SECONDS = 300.0
"""Of the program's work between what went in and what comes out."""

Size = Annotated[int, Field(ge=1, le=PART_BYTES)]


@dataclass(frozen=True, slots=True)
class _Moved:
    sizes: Annotated[list[Size], Field(max_length=100_000)]


class Parts:
    """The line to the program, as framed.Moving: all that goes in comes before what comes out.

    Nothing of it works but for the first call where the machine is replaced meanwhile: SandboxLost is raised.
    """

    def __init__(self, line: Line, request: Mapping[str, Any]) -> None:
        self._line = line
        self._request = request
        self._name = secrets.token_hex(8)
        self._unsent = bytearray()
        self._sent = 0
        self._pieces: AsyncIterator[bytes] | None = None
        self._fetched = 0

    async def write(self, data: bytes) -> None:
        self._unsent += data
        while len(self._unsent) >= PART_BYTES:
            part = bytes(self._unsent[:PART_BYTES])
            del self._unsent[:PART_BYTES]
            await self._line.put_part(self._name, self._sent, part)
            self._sent += 1

    async def read(self) -> bytes:
        if self._pieces is None:
            self._pieces = self._answer()
        return await anext(self._pieces, b"")

    async def forget(self) -> None:
        """What is left in the machine. Where that cannot be said, it goes some time later."""
        if self._sent or self._fetched:
            with suppress(SandboxError, MachineGone):
                await self._line.ask(dict, "forget", {"name": self._name}, replace=False)

    async def _answer(self) -> AsyncIterator[bytes]:
        request = {"name": self._name, "parts": self._sent, "transfer": dict(self._request)}
        moved, content = await self._line.ask(_Moved, "transfer", request, bytes(self._unsent), seconds=SECONDS)
        if content:
            yield content
        for number, size in enumerate(moved.sizes):
            self._fetched += 1
            try:
                yield await self._line.get_part(self._name, number, size)
            except MachineGone as gone:
                raise SandboxLost(BROKEN_OFF) from gone


@asynccontextmanager
async def parts(line: Line, request: Mapping[str, Any]) -> AsyncIterator[Parts]:
    moving = Parts(line, request)
    try:
        yield moving
    finally:
        await moving.forget()
