"""The gateway as a process: uvicorn, stopped quickly and without losing anything."""

import asyncio
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

from gateway.stream.sse import STREAMING
from shared.config import Settings
from shared.metrics import SHARED_FOLDER

GRACE_SECONDS = 2
"""For requests under way when the process is told to stop."""
CLOSE_SECONDS = 15.0
PING_SECONDS = 20.0
"""Pause between the pings of a WebSocket, and patience with a pong: a dead client is gone after twice that."""
WEBSOCKET_LOG = "trunkline.gateway.websocket"


HEAD_BYTES = 65_536
"""Of a request's line and headers, which are kept until they have all come."""
HEAD_SECONDS = 30.0
"""How long one may take to come, from the connection's begin or its own first byte."""
TOO_LONG_A_HEAD = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Protocol(HttpToolsProtocol):
    """A connection that does not make a stopping server wait for a stream, which has no end of its own.

    It is cut, so that its client goes on elsewhere from its last event. And one that does not keep a head without end,
    nor waits for one that does not come.
    """

    _head_bytes = 0
    _in_head = True
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_has_come()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.transport.write(TOO_LONG_A_HEAD)
                self.transport.close()

    def on_message_begin(self) -> None:
        self._head_bytes, self._in_head = 0, True
        self._late = self._late or self.loop.call_later(HEAD_SECONDS, self.transport.close)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_has_come()
        super().on_headers_complete()

    def _head_has_come(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def shutdown(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete and STREAMING in self.cycle.scope:
            self.transport.abort()
        else:
            super().shutdown()


class WebSocketProtocol(WSProtocol):
    """A close that does not wait for a client that reads no more: so long for what it has not read, then it is cut.

    What uvicorn would tell of each connection has its whole address, which may hold a ticket: it goes to WEBSOCKET_LOG.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = logging.getLogger(WEBSOCKET_LOG)
        self._cut: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._cut is not None:
            self._cut.cancel()
        super().connection_lost(exc)

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.close":
            self.writable.set()
            self._cut = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)
        await super().send(message)


def serve(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. Raises SystemExit, with 0 after either."""
    # uvicorn raises the signal once more when it is done, for whatever stood here before.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    with _shared_metrics(settings.api.workers):
        uvicorn.run(
            "gateway.app:from_environment",
            factory=True,
            host=settings.api.host,
            port=settings.api.port,
            workers=settings.api.workers,
            reload=settings.api.reload,
            loop="uvloop",
            http="gateway.server:Protocol",
            ws="gateway.server:WebSocketProtocol",
            ws_ping_interval=PING_SECONDS,
            ws_ping_timeout=PING_SECONDS,
            ws_per_message_deflate=False,  # its memory for each connection, and what a small message may blow up to
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            # Longer than a load balancer keeps an idle connection, or it may use one just closed.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )


@contextmanager
def _shared_metrics(workers: int) -> Iterator[None]:
    """Processes that share a port answer /metrics for all of them: whichever is asked."""
    if workers == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="trunkline-metrics-") as folder:
        os.environ[SHARED_FOLDER] = folder
        yield


def _exit(_: int, __: FrameType | None) -> None:
    sys.exit(0)
