"""The host's end of the link, against a sandboxd that an agent has taken over."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator

import pytest

from workflow.sandbox.base import MAX_READ_BYTES
from workflow.sandbox.frames import MAX_DATA, encode
from workflow.sandbox.link import MAX_RATE, Link, LinkClosed


class Impostor:
    """A link, and the other end of it."""

    def __init__(self) -> None:
        ours, self._theirs = socket.socketpair()
        self._theirs.setblocking(False)
        self.link = Link(ours)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._theirs, data)

    async def close(self) -> None:
        self._theirs.close()
        await self.link.close()


@pytest.fixture
async def impostor() -> AsyncIterator[Impostor]:
    impostor = Impostor()
    await impostor.link.open()
    yield impostor
    await impostor.close()


@pytest.mark.parametrize(
    "attack",
    [
        struct.pack(">II", 2**32 - 1, 0),
        struct.pack(">II", 3, 0) + b"[1]",
        struct.pack(">II", 100_000, 0) + b"[" * 100_000,
        b"\xff" * 64,
    ],
    ids=["a huge frame", "no object", "deep JSON", "noise"],
)
async def test_breaking_the_protocol_ends_the_link_and_every_call(impostor: Impostor, attack: bytes) -> None:
    calls = [asyncio.create_task(impostor.link.ask({"op": "x"})) for _ in range(3)]
    await asyncio.sleep(0)
    await impostor.send(attack)
    for call in calls:
        with pytest.raises(LinkClosed, match="protocol"):
            await call
    assert impostor.link.closed.is_set()
    with pytest.raises(LinkClosed):
        await impostor.link.ask({"op": "x"})


@pytest.mark.parametrize(
    "frame",
    [
        encode({}),
        encode({"id": 99, "done": True}),
        encode({"id": "1", "done": True}),
        encode({"id": None}, b"data"),
        encode({"id": [1], "done": True}),
    ],
)
async def test_answers_to_nothing_are_ignored(impostor: Impostor, frame: bytes) -> None:
    call = asyncio.create_task(impostor.link.ask({"op": "x"}))
    await asyncio.sleep(0)
    await impostor.send(frame)
    await impostor.send(encode({"id": 1, "done": True, "right": 1}))
    assert (await call)[0]["right"] == 1


async def test_no_more_is_taken_than_was_asked_for(impostor: Impostor) -> None:
    call = asyncio.create_task(impostor.link.ask({"op": "read"}))
    await asyncio.sleep(0)
    for _ in range(MAX_READ_BYTES // MAX_DATA + 1):
        await impostor.send(encode({"id": 1}, bytes(MAX_DATA)))
    with pytest.raises(LinkClosed, match="more bytes"):
        await call


async def test_a_flood_is_slowed_down_and_others_go_on(impostor: Impostor) -> None:
    received = 0

    def count(data: bytes) -> None:
        nonlocal received
        received += len(data)

    _, answer = impostor.link.start({"op": "run"}, count)
    flood = asyncio.create_task(impostor.send(encode({"id": 1}, bytes(MAX_DATA)) * 64))
    began = time.monotonic()
    while received < 64 * MAX_DATA:
        await asyncio.sleep(0)  # somebody else's turn
    assert time.monotonic() - began > 0.7 * 64 * MAX_DATA / MAX_RATE  # a load of others' can only make it longer
    await flood
    await impostor.send(encode({"id": 1, "done": True}))
    await answer


async def test_the_end_of_the_other_side_ends_every_call(impostor: Impostor) -> None:
    call = asyncio.create_task(impostor.link.ask({"op": "x"}))
    await asyncio.sleep(0)
    impostor._theirs.close()
    with pytest.raises(LinkClosed, match="has ended"):
        await call
