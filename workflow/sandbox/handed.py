"""Sockets that a sandbox handed to the host. Whoever is inside may have kept them too, and is not to be trusted.

What is shared is the open file description: its O_NONBLOCK and its options can be changed from inside at any time. So
every call here says itself that it must not wait (MSG_DONTWAIT).
"""

import array
import asyncio
import contextlib
import ipaddress
import itertools
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

PIECE = 64 * 1024
MAX_UNREAD = 1000  # messages of the channel that one look takes: an agent can send faster than anybody reads
NO_LINGER = struct.pack("ii", 0, 0)
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
_ONE_DESCRIPTOR = socket.CMSG_LEN(array.array("i").itemsize)  # room for no second one, which the kernel then closes


class Channel:
    """The host's end of what descriptors come out by. Only those that somebody waits for are kept."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._tokens = itertools.count(1)
        self._expected: dict[int, Handed | None] = {}

    @contextlib.contextmanager
    def expected(self) -> Iterator[int]:
        """A token by which sandboxd can hand over one socket, in this context."""
        token = next(self._tokens)
        self._expected[token] = None
        try:
            yield token
        finally:
            if unclaimed := self._expected.pop(token):
                unclaimed.close()

    def take(self, token: int) -> "Handed | None":
        """What was handed over by now; None where nothing was, or what is no socket."""
        for _ in range(MAX_UNREAD):
            try:
                if not self._receive():
                    break
            except OSError:
                break
        handed, self._expected[token] = self._expected[token], None
        return handed

    def close(self) -> None:
        self._connection.close()

    def _receive(self) -> bool:
        text, ancillary, _, _ = self._connection.recvmsg(32, _ONE_DESCRIPTOR, _FLAGS)
        fds = array.array("i")
        for _, _, content in ancillary:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        for fd in fds:
            token = int(text) if text.isdigit() else 0
            awaited = token in self._expected and self._expected[token] is None
            if awaited and stat.S_ISSOCK(os.fstat(fd).st_mode):
                self._expected[token] = Handed(fd)
            else:
                os.close(fd)
        return bool(text or fds)


class Handed:
    """A stream socket whose other end is inside. One reader and one writer at a time."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def leads_to(self, port: int) -> bool:
        """Whether it is a TCP connection to that port of the sandbox itself."""
        if (self._socket.type, self._socket.proto) != (socket.SOCK_STREAM, socket.IPPROTO_TCP):
            return False
        if self._socket.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        try:
            host, there = self._socket.getpeername()[:2]
        except OSError:
            return False
        return ipaddress.ip_address(host).is_loopback and there == port

    async def read(self) -> bytes:
        """What has come; empty at the end, however it came about."""
        while True:
            try:
                return self._socket.recv(PIECE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except OSError:
                return b""

    async def write(self, data: bytes) -> None:
        """Returns once the kernel has it all. Raises ConnectionError when nobody will ever read it."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)

    def end(self) -> None:
        """No more will be written."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # from inside it may have been told to wait (SO_LINGER)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self._socket.close()

    async def _ready(self, add: Callable[..., object], remove: Callable[[int], object]) -> None:
        ready = asyncio.Event()
        add(self._socket.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            remove(self._socket.fileno())
