"""A connection to a port of a sandbox: one HTTP exchange with the sandbox host, whose bodies flow both ways at once."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import h11
import httpcore
import orjson

PIECE = 64 * 1024
PORT_HEADERS = b"trunkline-port-headers"
MAX_REFUSAL_BYTES = 64 * 1024


class HostRefused(Exception):
    """The host answered with something else than a connection."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status
        self.body = body


class Tunnel(httpcore.AsyncNetworkStream):
    """A byte stream with back-pressure. One reader and one writer at a time. Raises httpcore's errors."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)
        self.headers: list[tuple[bytes, bytes]] = []
        """What HTTP requests over it bear in place of their own: the sandbox is behind somebody else's proxy."""

    @classmethod
    async def open(cls, url: str, path: str, headers: Sequence[tuple[str, str]]) -> "Tunnel":
        """Raises HostRefused, httpcore.NetworkError."""
        address = urlsplit(url)
        secure = ssl.create_default_context() if address.scheme == "https" else None
        port = address.port or (443 if secure else 80)
        try:
            reader, writer = await asyncio.open_connection(address.hostname, port, ssl=secure, limit=PIECE)
        except OSError as error:
            raise httpcore.ConnectError(f"the sandbox host at {url} does not answer") from error
        tunnel = cls(reader, writer)
        try:
            await tunnel._begin(path, [("host", address.netloc), ("transfer-encoding", "chunked"), *headers])
        except BaseException:
            await tunnel.aclose()
            raise
        return tunnel

    async def _begin(self, path: str, headers: Sequence[tuple[str, str]]) -> None:
        await self._send(h11.Request(method="POST", target=path, headers=list(headers)))
        event = await self._event()
        if not isinstance(event, h11.Response):
            raise httpcore.ConnectError("the sandbox host hung up")
        if event.status_code != 200:
            body = b""
            while len(body) < MAX_REFUSAL_BYTES and (piece := await self.read(PIECE)):
                body += piece
            raise HostRefused(event.status_code, body)
        self.headers = _told(dict(event.headers).get(PORT_HEADERS, b"{}"))

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's interface
        """A piece of what comes, which may be longer than `max_bytes`; empty at the end."""
        try:
            async with asyncio.timeout(timeout):
                event = await self._event()
        except TimeoutError as error:
            raise httpcore.ReadTimeout(f"no answer within {timeout:g} s") from error
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        if not buffer:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._send(h11.Data(data=buffer))
        except TimeoutError as error:
            raise httpcore.WriteTimeout(f"nothing was taken within {timeout:g} s") from error

    async def aclose(self) -> None:
        self._writer.transport.abort()

    def get_extra_info(self, info: str) -> Any:
        return None

    async def _send(self, event: h11.Request | h11.Data) -> None:
        try:
            self._writer.write(self._http.send(event) or b"")
            await self._writer.drain()
        except (OSError, h11.LocalProtocolError) as error:
            raise httpcore.WriteError(str(error)) from error

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        try:
            while True:
                event = self._http.next_event()
                if event is not h11.NEED_DATA:
                    return event  # type: ignore[return-value]  # mypy does not narrow h11's sentinels
                self._http.receive_data(await self._reader.read(PIECE))
        except (OSError, h11.RemoteProtocolError) as error:
            raise httpcore.ReadError(str(error)) from error


def _told(text: bytes) -> list[tuple[bytes, bytes]]:
    """Raises httpcore.ConnectError."""
    try:
        return [(name.encode("ascii"), value.encode("ascii")) for name, value in orjson.loads(text).items()]
    except (ValueError, AttributeError) as error:
        raise httpcore.ConnectError("the sandbox host tells headers that make no sense") from error


@asynccontextmanager
async def closing(tunnel: Tunnel) -> AsyncIterator[Tunnel]:
    try:
        yield tunnel
    finally:
        await tunnel.aclose()
