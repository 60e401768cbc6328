"""An HTTP proxy over connections that come out of a sandbox: CONNECT for TLS, absolute URLs for plain HTTP.

Where a request may go is the Guard's to say, once for each; the connection goes to an address that it has checked. A
refusal is an answer that a model can read. Requests over one connection inside have connections of their own outside,
so that none can be meant for a host that another one was let through to.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import h11
import httpx

from shared.net.guard import PORTS, Guard, Refused
from workflow.sandbox.base import Network
from workflow.sandbox.handed import Handed

PIECE = 64 * 1024
MAX_HEAD_BYTES = 64 * 1024
CONNECT_SECONDS = 10.0
AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")
# Of one connection, not of the request; Expect is answered here.
HOP_BY_HOP = frozenset(
    name.encode()
    for name in (
        *("connection", "expect", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
        *("te", "trailer", "upgrade"),
    )
)


class Side(Protocol):
    """One end of what is relayed."""

    async def read(self) -> bytes:
        """Empty at the end."""

    async def write(self, data: bytes) -> None: ...

    def end(self) -> None:
        """No more will be written."""


@dataclass(slots=True)
class Traffic:
    """In bytes, as the sandbox sees it, with the heads of HTTP."""

    sent: int = 0
    received: int = 0


class Refusal(Exception):
    """A request that is not carried out. `reason` goes into the status line: some clients show nothing else."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Proxy:
    """`idle_seconds`: of silence, both ways, after which a connection is closed."""

    guard: Guard
    network: Network
    idle_seconds: float

    async def serve(self, client: Handed, traffic: Traffic, on_refusal: Callable[[str], None]) -> None:
        """One connection, to its end. Raises OSError, TimeoutError, in groups too."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self.idle_seconds) as clock:

            def moved(size: int, outward: bool) -> None:
                if outward:
                    traffic.sent += size
                else:
                    traffic.received += size
                clock.reschedule(loop.time() + self.idle_seconds)

            await _Visit(self, _Counted(client, moved), on_refusal).serve()

    @asynccontextmanager
    async def connection(self, url: str) -> AsyncIterator["_Outside"]:
        """To where the URL points. Raises Refusal."""
        reader, writer = await self._connect(url)
        try:
            yield _Outside(reader, writer)
        finally:
            writer.transport.abort()

    async def _connect(self, url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            target = await self.guard.check(url)
        except Refused as refused:
            text = f"This sandbox may not reach {_shown(url)}: {refused}. {self.network.text}"
            raise Refusal(403, "Not allowed from this sandbox", text) from refused
        except OSError as error:
            raise _unreachable(url, error) from error
        port = httpx.URL(url).port or PORTS[url.partition(":")[0]]
        problem: OSError = OSError("it has no address")
        for address in target.addresses:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await asyncio.open_connection(address, port, limit=PIECE)
            except OSError as error:
                problem = error
        raise _unreachable(url, problem) from problem


def _unreachable(url: str, error: OSError) -> Refusal:
    why = str(error) or type(error).__name__
    return Refusal(502, "Unreachable", f"{_shown(url)} cannot be reached from here: {why}")


def _shown(url: str) -> str:
    return url.split("/", 3)[2][:300]


@dataclass(slots=True)
class _Counted:
    """The inside, by which all traffic passes."""

    handed: Handed
    moved: Callable[[int, bool], None]

    async def read(self) -> bytes:
        piece = await self.handed.read()
        self.moved(len(piece), True)
        return piece

    async def write(self, data: bytes) -> None:
        await self.handed.write(data)
        self.moved(len(data), False)

    def end(self) -> None:
        self.handed.end()


@dataclass(frozen=True, slots=True)
class _Outside:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self) -> bytes:
        return await self.reader.read(PIECE)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.writer.write_eof()


class _Visit:
    """One connection from the inside: a tunnel, or one request after another."""

    def __init__(self, proxy: Proxy, client: Side, on_refusal: Callable[[str], None]) -> None:
        self._proxy = proxy
        self._client = client
        self._on_refusal = on_refusal
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)

    async def serve(self) -> None:
        try:
            while isinstance(request := await _next(self._http, self._client), h11.Request):
                await self._answer(request)
                if self._http.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                    break
                self._http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._refuse(Refusal(error.error_status_hint, "Malformed", f"That is no HTTP request: {error}"))

    async def _answer(self, request: h11.Request) -> None:
        try:
            if request.method == b"CONNECT":
                await self._tunnel(request)
            else:
                await self._forward(request)
        except Refusal as refusal:
            if refusal.status == 403:
                self._on_refusal(str(refusal))
            await self._refuse(refusal)

    async def _refuse(self, refusal: Refusal) -> None:
        body = f"{refusal}\n".encode()
        headers = [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body)))]
        await self._send(
            h11.Response(
                status_code=refusal.status, reason=refusal.reason.encode(), headers=[*headers, ("connection", "close")]
            )
        )
        await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())
        self._client.end()

    async def _send(self, event: h11.Event) -> None:
        if data := self._http.send(event):
            await self._client.write(data)

    # --- TLS, or whatever is spoken over a tunnel

    async def _tunnel(self, request: h11.Request) -> None:
        if not AUTHORITY.fullmatch(request.target):
            raise Refusal(400, "Malformed", "CONNECT wants HOST:PORT")
        async with self._proxy.connection(f"https://{request.target.decode()}/") as outside:
            await _next(self._http, self._client)  # the end of the request
            await self._send(h11.Response(status_code=200, reason=b"Connection established", headers=[]))
            early, _ = self._http.trailing_data
            await outside.write(early)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_relay(self._client, outside))
                ways.create_task(_relay(outside, self._client))

    # --- plain HTTP

    async def _forward(self, request: h11.Request) -> None:
        url = _absolute(request.target)
        async with self._proxy.connection(str(url)) as outside:
            http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
            headers = [(b"host", url.netloc), (b"connection", b"close"), *_end_to_end(request.headers, b"host")]
            head = h11.Request(method=request.method, target=url.raw_path, headers=headers)
            await outside.write(http.send(head) or b"")
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            with contextlib.suppress(ConnectionError):  # it may have answered without reading to the end
                await self._body(http, outside)
            await self._response(http, outside)

    async def _body(self, http: h11.Connection, outside: Side) -> None:
        while True:
            event = await _next(self._http, self._client)
            if isinstance(event, h11.ConnectionClosed):
                raise ConnectionAbortedError("the sandbox hung up")
            await outside.write(http.send(event) or b"")
            if isinstance(event, h11.EndOfMessage):
                return

    async def _response(self, http: h11.Connection, outside: Side) -> None:
        """Passes the answer in. One that breaks off does so inside too."""
        begun = False
        try:
            while not isinstance(event := await _next(http, outside), h11.ConnectionClosed | h11.EndOfMessage):
                if isinstance(event, h11.Response):
                    begun, headers = True, _end_to_end(event.headers)
                    event = h11.Response(status_code=event.status_code, reason=event.reason, headers=headers)
                if not isinstance(event, h11.InformationalResponse):
                    await self._send(event)
        except h11.RemoteProtocolError as error:
            if begun:
                raise ConnectionAbortedError(str(error)) from error
            raise Refusal(502, "Bad answer", f"The server's answer is not HTTP: {error}") from error
        if isinstance(event, h11.EndOfMessage):
            await self._send(h11.EndOfMessage())


def _absolute(target: bytes) -> httpx.URL:
    """Raises Refusal."""
    try:
        url = httpx.URL(target.decode("ascii"))
    except (httpx.InvalidURL, UnicodeDecodeError) as error:
        raise Refusal(400, "Malformed", f"That is no URL: {error}") from error
    if url.scheme != "http" or not url.host:
        raise Refusal(400, "Malformed", "This is a proxy: it wants CONNECT, or a request for an http:// URL")
    return url


def _end_to_end(headers: Iterable[tuple[bytes, bytes]], *without: bytes) -> list[tuple[bytes, bytes]]:
    named = {name.strip().lower() for key, value in headers if key == b"connection" for name in value.split(b",")}
    dropped = (HOP_BY_HOP | named | {*without}) - {b"transfer-encoding", b"content-length"}
    return [(name, value) for name, value in headers if name not in dropped]


async def _next(http: h11.Connection, side: Side) -> h11.Event:
    """Raises h11.RemoteProtocolError."""
    while not isinstance(event := http.next_event(), h11.Event):
        http.receive_data(await side.read())
    return event


async def _relay(source: Side, target: Side) -> None:
    while piece := await source.read():
        await target.write(piece)
    target.end()
