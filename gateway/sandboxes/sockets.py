"""A WebSocket of a client, relayed to a server in a sandbox: messages, close codes, subprotocols."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import httpcore
from starlette.websockets import WebSocket
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from gateway.sandboxes.http import Patience
from gateway.sandboxes.place import inward
from gateway.sandboxes.refusal import ENDED, Refusal
from gateway.sandboxes.tunnel import PIECE, Tunnel

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
EVENTS_A_TURN = 100
"""After so many of one server the event loop, which is everybody's, goes round."""
GONE = 1011
"""What the client hears where the server in the sandbox ends without a word."""
_HANDSHAKE = frozenset(
    (
        *(b"host", b"sec-websocket-extensions", b"sec-websocket-key", b"sec-websocket-protocol"),
        b"sec-websocket-version",
    )
)


async def relay(tunnel: Tunnel, client: WebSocket, patience: Patience, *, end: Coroutine[Any, Any, None]) -> None:
    """Raises Refusal where there is no WebSocket to be had. Closes it when `end` returns."""
    ending = asyncio.create_task(end)
    try:
        await _relay(tunnel, client, patience, ending)
    finally:
        ending.cancel()
        await asyncio.wait([ending])


async def _relay(tunnel: Tunnel, client: WebSocket, patience: Patience, ending: asyncio.Task[None]) -> None:
    server = _Server(tunnel)
    try:
        async with asyncio.timeout(patience.answer):
            accepted = await server.open(client)
    except TimeoutError as error:
        raise Refusal(504, f"The server in the sandbox has not answered within {patience.answer:g} s.") from error
    except (httpcore.NetworkError, RemoteProtocolError) as error:
        raise Refusal(502, "The server in the sandbox hung up, or speaks no WebSocket here.") from error
    await client.accept(accepted.subprotocol)
    ways = [asyncio.create_task(_to_server(client, server)), asyncio.create_task(_to_client(server, client))]
    try:
        ended, _ = await asyncio.wait([*ways, ending], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
    if ended == {ending}:
        await client.close(CloseReason.POLICY_VIOLATION, ENDED)


async def _to_server(client: WebSocket, server: "_Server") -> None:
    while (message := await client.receive())["type"] == "websocket.receive":
        text, data = message.get("text"), message.get("bytes")
        if not await server.send(BytesMessage(data=data or b"") if text is None else TextMessage(data=text)):
            await asyncio.Event().wait()  # the other way is about to learn why
    code = message.get("code", CloseReason.NO_STATUS_RCVD)
    if code != CloseReason.ABNORMAL_CLOSURE:
        await server.send(CloseConnection(code=_reason(code), reason=message.get("reason")))


async def _to_client(server: "_Server", client: WebSocket) -> None:
    code, reason = GONE, "the server in the sandbox is gone"
    try:
        async for event in server.messages():
            if isinstance(event, CloseConnection):
                code, reason = event.code, event.reason or ""
                await server.send(event.response())
            elif isinstance(event, TextMessage):
                await client.send_text(event.data)
            else:
                await client.send_bytes(bytes(event.data))
    except _TooLong:
        code, reason = CloseReason.MESSAGE_TOO_BIG, f"a message has more than {MAX_MESSAGE_BYTES} bytes"
    except (httpcore.NetworkError, RemoteProtocolError):
        pass
    await client.close(CloseReason.NORMAL_CLOSURE if code == CloseReason.NO_STATUS_RCVD else code, reason)


def _reason(code: int) -> int:
    """wsproto knows the reasons that stand for no code at all by their identity."""
    return CloseReason(code) if code in list(CloseReason) else code


class _TooLong(Exception):
    """A message."""


class _Server:
    """The client's end of a WebSocket over a tunnel."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._socket = WSConnection(ConnectionType.CLIENT)

    async def open(self, client: WebSocket) -> AcceptConnection:
        """Raises Refusal, httpcore.NetworkError, RemoteProtocolError."""
        scope = client.scope
        query = scope["query_string"].decode("latin-1")
        target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        sent = inward(scope["headers"], scope["scheme"], self._tunnel.headers)
        host = next((value.decode("latin-1") for name, value in sent if name == b"host"), "")
        headers = [(name, value) for name, value in sent if name not in _HANDSHAKE]
        request = Request(
            host=host,
            target=target,
            extra_headers=headers,
            subprotocols=scope["subprotocols"],
        )
        await self._tunnel.write(self._socket.send(request))
        async for event in self._events():
            if isinstance(event, AcceptConnection):
                return event
            if isinstance(event, RejectConnection):
                raise Refusal(
                    502, f"The server in the sandbox takes no WebSocket here: it answered {event.status_code}."
                )
        raise httpcore.ReadError("it hung up")

    async def send(self, event: Event) -> bool:
        """Whether the server still took it."""
        try:
            await self._tunnel.write(self._socket.send(event))
        except (httpcore.NetworkError, LocalProtocolError):
            return False
        return True

    async def messages(self) -> AsyncIterator[TextMessage | BytesMessage | CloseConnection]:
        """Whole ones; the last is what closes it. Raises _TooLong, httpcore.NetworkError, RemoteProtocolError."""
        message = bytearray()
        async for event in self._events():
            if isinstance(event, Ping):
                await self.send(event.response())
            elif isinstance(event, CloseConnection):
                yield event
                return
            elif isinstance(event, (TextMessage, BytesMessage)):
                message += event.data.encode() if isinstance(event, TextMessage) else event.data
                if len(message) > MAX_MESSAGE_BYTES:
                    raise _TooLong
                if event.message_finished:
                    yield TextMessage(message.decode()) if isinstance(event, TextMessage) else BytesMessage(message)
                    message = bytearray()

    async def _events(self) -> AsyncIterator[Event]:
        seen = 0
        while True:
            for event in self._socket.events():
                yield event
                seen += 1
                if seen % EVENTS_A_TURN == 0:
                    await asyncio.sleep(0)
            data = await self._tunnel.read(PIECE)
            if not data:
                return
            self._socket.receive_data(data)
