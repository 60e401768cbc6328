"""Sockets for the host: connections to the ports of the sandbox, and to the programs that move files.

Runs inside the sandbox: standard library only, nothing newer than Python 3.9. `socket` is imported when first needed:
it would cost every cold start 3 ms.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import time

from workflow.sandbox.sandboxd_files import refusal
from workflow.sandbox.sandboxd_listening import listening

TYPE_CHECKING = False  # importing typing would cost every cold start 4 ms
if TYPE_CHECKING:
    import socket
    from typing import Any

DIAL_SECONDS = 5.0  # a server whose line of callers is full answers within some seconds, or not at all
PROXY_BACKLOG = 128


def hand_over(channel: int, token: int, fd: int) -> None:
    """Gives the host a descriptor. Raises OSError."""
    import socket  # noqa: PLC0415

    with socket.socket(fileno=os.dup(channel)) as to_host:
        socket.send_fds(to_host, [b"%d" % token], [fd], socket.MSG_DONTWAIT)


def listen(port: int) -> socket.socket:
    """Raises OSError."""
    import socket  # noqa: PLC0415

    listener = socket.create_server(("127.0.0.1", port), backlog=PROXY_BACKLOG)
    listener.setblocking(False)
    return listener


def accept(listener: socket.socket, channel: int, token: int) -> bool:
    """Hands the next connection over, if there is one. Raises OSError."""
    try:
        connection, _ = listener.accept()
    except (BlockingIOError, ConnectionError):  # it is gone already
        return False
    with connection:
        hand_over(channel, token, connection.fileno())
    return True


def start_transfer(message: dict[str, Any], channel: int) -> tuple[int, int]:
    """Starts sandboxd_transfer.py and hands over the other end of its input and output. Raises OSError.

    Returns its pid and a descriptor of it.
    """
    import json  # noqa: PLC0415
    import socket  # noqa: PLC0415

    ours, theirs = socket.socketpair()
    with ours, theirs:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", sys.argv[0], "transfer", json.dumps(message)],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, ours.fileno(), fd) for fd in (0, 1)],
            setsid=True,
            setsigdef=[signal.SIGPIPE],
        )
        hand_over(channel, message["token"], theirs.fileno())
    return pid, os.pidfd_open(pid)


class Dial:
    """A connection to a port, being made; handed to the host when it is there."""

    def __init__(self, message: dict[str, Any], channel: int) -> None:
        import socket  # noqa: PLC0415

        self.message = message
        self._channel = channel
        self._deadline = time.monotonic() + DIAL_SECONDS
        self._addresses = [(socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")]
        self._connection: socket.socket | None = None
        self._next()

    def answer(self) -> dict[str, Any] | None:
        """None while it is being made."""
        while self._connection is not None:
            code = self._state(self._connection)
            if code == errno.EINPROGRESS and time.monotonic() < self._deadline:
                return None
            if code == 0:
                return self._hand_over(self._connection)
            self._next()
        return {"refused": True, "ports": listening()}

    def _state(self, connection: socket.socket) -> int:
        import socket  # noqa: PLC0415

        poll = select.poll()
        poll.register(connection, select.POLLOUT)
        if not poll.poll(0):
            return errno.EINPROGRESS
        return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def _next(self) -> None:
        import socket  # noqa: PLC0415

        if self._connection is not None:
            self._connection.close()
            self._connection = None
        while self._addresses and self._connection is None:
            family, host = self._addresses.pop()
            with contextlib.suppress(OSError):
                connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                if connection.connect_ex((host, self.message["port"])) in (0, errno.EINPROGRESS):
                    self._connection = connection

    def _hand_over(self, connection: socket.socket) -> dict[str, Any]:
        self._connection = None
        with connection:
            try:
                hand_over(self._channel, self.message["token"], connection.fileno())
            except OSError as error:
                return refusal(error, "the connection").answer
        return {}
