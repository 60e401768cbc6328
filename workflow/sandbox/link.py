"""The host's end of the link to a sandboxd. Everything that comes from it is checked: an agent may have written it."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from shared.types import JSON
from workflow.sandbox.base import MAX_READ_BYTES, SandboxRefused
from workflow.sandbox.frames import MAX_DATA, Decoder, FrameError, encode

RECEIVE_BYTES = 256 * 1024
MAX_RATE = 64 * 1024 * 1024  # bytes a second that one sandbox may send: others need the host too
WINDOW = 0.01  # seconds over which the rate is kept


class LinkClosed(Exception):
    """The sandbox ended, or broke the protocol."""


@dataclass(slots=True)
class _Call:
    on_data: Callable[[bytes], None]
    answer: asyncio.Future[JSON] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Link:
    """Requests and their answers, many at once. `closed` is set when it can be used no more."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._calls: dict[int, _Call] = {}
        self._numbers = itertools.count(1)
        self._decoder = Decoder()
        self.closed = asyncio.Event()

    async def open(self) -> None:
        reader, self._writer = await asyncio.open_connection(sock=self._connection, limit=RECEIVE_BYTES)
        self._receiving = asyncio.create_task(self._receive(reader))

    async def close(self) -> None:
        self._receiving.cancel()
        await asyncio.wait([self._receiving])
        self._end("the sandbox has ended")

    def start(self, message: JSON, on_data: Callable[[bytes], None]) -> tuple[int, asyncio.Future[JSON]]:
        """Sends a request, or raises SandboxRefused. Returns its number and its answer to come (or LinkClosed)."""
        number = next(self._numbers)
        try:
            frame = encode({**message, "id": number})
        except FrameError as error:
            raise SandboxRefused(f"the request is too long: {error}") from error
        call = _Call(on_data)
        if self.closed.is_set():
            call.answer.set_exception(LinkClosed("the sandbox has ended"))
        else:
            self._calls[number] = call
            self._writer.write(frame)
        return number, call.answer

    async def ask(self, message: JSON, data: bytes = b"") -> tuple[JSON, bytes]:
        """A request whose answer is small enough to be held. Raises LinkClosed, SandboxRefused."""
        received = bytearray()

        def collect(piece: bytes) -> None:
            if len(received) + len(piece) > MAX_READ_BYTES:
                raise FrameError("more bytes than were asked for")
            received.extend(piece)

        number, answer = self.start(message, collect)
        for start in range(0, len(data), MAX_DATA):
            self._writer.write(encode({"op": message["op"], "id": number}, data[start : start + MAX_DATA]))
            await self._drain()
        try:
            return await answer, bytes(received)
        finally:
            self._calls.pop(number, None)

    async def _drain(self) -> None:
        with contextlib.suppress(ConnectionError):  # _receive sees it too, and tells everybody
            await self._writer.drain()

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        reason = "the sandbox has ended"
        try:
            async for chunk in _paced(reader):
                self._take(chunk)
        except FrameError as error:
            reason = f"the sandbox does not keep to the protocol: {error}"
        except ConnectionError:
            pass
        self._end(reason)

    def _end(self, reason: str) -> None:
        self.closed.set()
        self._writer.close()
        for call in self._calls.values():
            if not call.answer.done():
                call.answer.set_exception(LinkClosed(reason))
        self._calls.clear()

    def _take(self, chunk: bytes) -> None:
        for message, data in self._decoder.feed(chunk):
            call = self._calls.get(message["id"]) if isinstance(message.get("id"), int) else None
            if call is None:
                continue  # its caller has gone
            if data:
                call.on_data(data)
            if message.get("done"):
                del self._calls[message["id"]]
                if not call.answer.done():
                    call.answer.set_result(message)


async def _paced(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """What comes, but no faster than MAX_RATE: then the sender has to wait."""
    clock = asyncio.get_running_loop().time
    window_end, received = 0.0, 0
    while chunk := await reader.read(RECEIVE_BYTES):
        yield chunk
        if clock() > window_end:
            window_end, received = clock() + WINDOW, 0
        received += len(chunk)
        if received > MAX_RATE * WINDOW:
            await asyncio.sleep(window_end - clock())
