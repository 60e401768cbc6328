"""WebSockets of servers in sandboxes: a server there chooses the pieces, and all tenants share the gateway's loop."""

import asyncio
from collections.abc import Generator, Iterator

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Request, TextMessage

from gateway.sandboxes import sockets
from gateway.sandboxes.tunnel import Tunnel

PIECES = 2_000


class Wire(Tunnel):
    """Gives what the server has sent, at once, and then its end."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's interface
        return self._pieces.pop(0) if self._pieces else b""


class Socket(WSConnection):
    """Gives the events that it is told to."""

    def __init__(self, events: Iterator[Event]) -> None:
        super().__init__(ConnectionType.CLIENT)
        self._told = events

    def events(self) -> Generator[Event, None, None]:
        yield from self._told


def server_that_sends(*events: Event) -> sockets._Server:
    """Over the wire, in frames."""
    client, server = WSConnection(ConnectionType.CLIENT), WSConnection(ConnectionType.SERVER)
    server.receive_data(client.send(Request(host="x", target="/")))
    next(server.events())
    client.receive_data(server.send(AcceptConnection()))
    next(client.events())
    opened = sockets._Server(Wire(b"".join(server.send(event) for event in events)))
    opened._socket = client
    return opened


class Counted(bytes):
    looked = 0

    def __len__(self) -> int:
        Counted.looked += 1
        return 1


async def test_a_message_in_many_pieces_costs_in_proportion_to_them() -> None:
    server = sockets._Server(Wire())
    server._socket = Socket(BytesMessage(Counted(b"x"), message_finished=n == PIECES) for n in range(1, PIECES + 1))
    [message] = [message async for message in server.messages()]
    assert isinstance(message, BytesMessage)
    assert bytes(message.data) == b"x" * PIECES
    assert Counted.looked < 10 * PIECES


async def test_others_have_their_turn_while_many_pieces_come() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    server = server_that_sends(*(BytesMessage(b"x", message_finished=False) for _ in range(PIECES)))
    neighbour = asyncio.create_task(other())
    assert [message async for message in server.messages()] == []
    neighbour.cancel()
    assert turns >= PIECES // sockets.EVENTS_A_TURN


async def test_the_pieces_of_a_message_come_out_as_one() -> None:
    server = server_that_sends(
        TextMessage("hä", message_finished=False),
        TextMessage("", message_finished=False),
        TextMessage("llo"),
        BytesMessage(b"\x00", message_finished=False),
        BytesMessage(b"\xff"),
        TextMessage(""),
        CloseConnection(1000),
    )
    messages = [message async for message in server.messages()]
    assert messages[:3] == [TextMessage("hällo"), BytesMessage(b"\x00\xff"), TextMessage("")]
    assert isinstance(messages[3], CloseConnection)


async def test_a_message_is_too_long_by_all_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "MAX_MESSAGE_BYTES", 10)
    fits = server_that_sends(TextMessage("ä" * 4, message_finished=False), TextMessage("xx"), CloseConnection(1000))
    assert await anext(fits.messages()) == TextMessage("ääääxx")
    exceeds = server_that_sends(TextMessage("ä" * 4, message_finished=False), TextMessage("xxx"))
    with pytest.raises(sockets._TooLong):
        [message async for message in exceeds.messages()]
