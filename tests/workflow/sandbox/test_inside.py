"""What a host makes of a sandboxd that an agent has taken over: one that answers, and hands over what it likes."""

import array
import asyncio
import io
import json
import os
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.support.waiting import until
from workflow.sandbox.base import NotListening
from workflow.sandbox.bwrap import Started
from workflow.sandbox.frames import encode
from workflow.sandbox.inside import Inside
from workflow.sandbox.link import LinkClosed

PORT = 7004


class Impostor:
    """Both ends of link and channel, with a process that stands for bubblewrap."""

    def __init__(self) -> None:
        link, self._link = socket.socketpair()
        channel, self._channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = subprocess.Popen(["sleep", "60"])
        self.inside = Inside(Started(process, link, channel, io.FileIO(os.devnull)), None)
        self._link.setblocking(False)

    async def request(self) -> dict[str, int]:
        """What the host asks next."""
        received = await asyncio.get_running_loop().sock_recv(self._link, 65536)
        length, _ = struct.unpack_from(">II", received)
        return dict(json.loads(received[8 : 8 + length]))

    def hand_over(self, token: int, *fds: int) -> None:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        self._channel.sendmsg([b"%d" % token], [rights])

    def send(self, data: bytes) -> None:
        self._link.send(data)

    async def close(self) -> None:
        await self.inside.stop()
        self._link.close()
        self._channel.close()


@pytest.fixture
async def impostor() -> AsyncIterator[Impostor]:
    before = _open_descriptors()
    impostor = Impostor()
    await impostor.inside.link.open()
    yield impostor
    await impostor.close()
    await until(lambda: _open_descriptors() == before)


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _file() -> int:
    return os.open("/dev/null", os.O_RDONLY)


def _folder() -> int:
    return os.open("/", os.O_RDONLY | os.O_DIRECTORY)


def _datagrams() -> int:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()


def _unconnected() -> int:
    return socket.socket().detach()


@pytest.mark.parametrize("make", [_file, _folder, _datagrams, _unconnected])
async def test_a_descriptor_that_is_no_connection_to_the_port_is_dropped(
    impostor: Impostor, make: Callable[[], int]
) -> None:
    dialling = asyncio.create_task(impostor.inside.dial(PORT))
    asked = await impostor.request()
    fd = make()
    impostor.hand_over(asked["token"], fd, fd, fd)
    impostor.hand_over(asked["token"], fd)
    os.close(fd)
    impostor.send(encode({"id": asked["id"], "done": True}))
    with pytest.raises((LinkClosed, NotListening)):
        await dialling
    assert impostor.inside.running


async def test_a_huge_frame_ends_what_waits_and_nothing_more_is_taken(impostor: Impostor) -> None:
    dialling = asyncio.create_task(impostor.inside.dial(PORT))
    asked = await impostor.request()
    impostor.hand_over(asked["token"], fd := _file())
    os.close(fd)
    impostor.send(struct.pack(">II", 2**32 - 1, 2**32 - 1))
    with pytest.raises(LinkClosed, match="protocol"):
        await dialling
    assert not impostor.inside.running
    with pytest.raises(LinkClosed):
        await impostor.inside.ask({"op": "stat", "path": "x"})
