"""Connections to the ports of remote machines, by what their providers let through."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

PIECE = 64 * 1024
CONNECT_SECONDS = 10.0


class Stream(Protocol):
    """To a server inside. One reader and one writer at a time."""

    async def read(self) -> bytes:
        """What has come; empty at the end, however it came about."""

    async def write(self, data: bytes) -> None:
        """Returns once somebody has taken it. Raises ConnectionError when nobody ever will."""

    def end(self) -> None:
        """No more will be written."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Way:
    """To one port. HTTP requests over `open`'s connections bear `headers` (lower case) in place of their own.

    `open` raises OSError.
    """

    open: Callable[[], Awaitable[Stream]]
    headers: Mapping[str, str] = field(default_factory=dict)


def web_way(url: str, headers: Mapping[str, str]) -> Way:
    """By a provider's address of the port, whose proxy looks at the Host header."""
    address = urlsplit(url)
    host, secure = address.hostname or "", address.scheme == "https"
    options: dict[str, Any] = {"server_hostname": host} if secure else {}

    async def open_pipe() -> Stream:
        context = ssl.create_default_context() if secure else None
        port = address.port or (443 if secure else 80)
        async with asyncio.timeout(CONNECT_SECONDS):
            return Pipe(*await asyncio.open_connection(_reachable(host), port, ssl=context, **options))

    return Way(open_pipe, {"host": address.netloc, **headers})


def _reachable(host: str) -> str:
    """Every name below localhost is this machine (RFC 6761), which not every resolver knows."""
    return "127.0.0.1" if host.endswith(".localhost") else host


class Pipe:
    """A Stream over TCP, or TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(PIECE)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def end(self) -> None:
        if self._writer.can_write_eof():
            self._writer.write_eof()

    def close(self) -> None:
        self._writer.transport.abort()
