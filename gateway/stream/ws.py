"""A subscription over a WebSocket: events out, frames of the client in (docs/streaming.md).

Nothing piles up for a client that is slow: its cursor waits, until it is dropped. It resumes after its last event.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.stream.subscription import Notice, Subscription
from shared.tasks import cancel

log = logging.getLogger("trunkline.gateway.stream")

MAX_REFUSED, REFUSED_SECONDS = 20, 10.0
"""A client with more refused frames than that, in so many seconds, is dropped."""


class CloseCode(IntEnum):
    """Why the gateway closes a WebSocket. 4000 to 4999 is 4000 and the HTTP status that would say the same."""

    DONE = 1000
    """The run has ended, and all of it was told."""
    BINARY = 1003
    CRASHED = 1011
    UNAUTHORIZED = 4401
    """The key was revoked."""
    NOT_FOUND = 4404
    TIMEOUT = 4408
    TOO_MANY = 4429
    """Too many frames that were refused."""
    TOO_SLOW = 4499
    """The client has taken nothing of what it is sent for `stream.slow_seconds`."""


@dataclass(frozen=True, slots=True)
class Answered:
    """`refused`: for what it was, or because there were too many."""

    frame: bytes
    refused: bool = False


Answer = Callable[[str], Awaitable[Answered]]
"""Does what a client's frame says. Must not raise."""


@dataclass(frozen=True, slots=True)
class _Closing:
    code: CloseCode
    reason: str = ""


class _Slow(Exception):
    pass


class Talk:
    """A WebSocket that is to be accepted, and what goes over it."""

    def __init__(self, socket: WebSocket, subscription: Subscription, answer: Answer) -> None:
        self._socket = socket
        self._subscription = subscription
        self._answer = answer
        self._refused: deque[float] = deque(maxlen=MAX_REFUSED)

    async def hold(self) -> None:
        """Until either side ends it."""
        ways: list[asyncio.Task[_Closing | None]] = []
        try:
            await self._socket.accept()
            ways = [asyncio.create_task(way) for way in (self._tell(), self._listen())]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            closing = await _outcome(next(way for way in ways if way.done()))
        except WebSocketDisconnect:
            return
        finally:
            await cancel(ways)
            await asyncio.gather(*ways, return_exceptions=True)  # read, so that nobody is told that it never was
            self._subscription.close()
        if closing:
            await self._close(closing)

    async def _tell(self) -> _Closing:
        subscription, show = self._subscription, self._subscription.wanted.show
        code = CloseCode.DONE
        while not subscription.ended:
            match found := subscription.next():
                case None if not subscription.ended:
                    await subscription.wait()
                case Notice():
                    await self._send(orjson.dumps(found.data))
                    code = _code_of(found) if subscription.ended else code
                case [*entries]:
                    for entry in entries:
                        if message := entry.shown(show):
                            await self._send(message)
        return _Closing(code)

    async def _listen(self) -> _Closing | None:
        """None where the client has gone."""
        while (message := await self._socket.receive())["type"] == "websocket.receive":
            text = message.get("text")
            if text is None:
                return _Closing(CloseCode.BINARY, "frames are JSON, sent as text")
            answered = await self._answer(text)
            await self._send(answered.frame)
            if answered.refused and self._is_too_many():
                return _Closing(CloseCode.TOO_MANY, "too many refused frames")
        return None

    def _is_too_many(self) -> bool:
        now = asyncio.get_running_loop().time()
        full = len(self._refused) == MAX_REFUSED and now - self._refused[0] < REFUSED_SECONDS
        self._refused.append(now)
        return full

    async def _send(self, message: bytes) -> None:
        """Returns when the client takes it, or the system for it. Raises _Slow, WebSocketDisconnect."""
        try:
            async with asyncio.timeout(self._subscription.limits.slow_seconds):
                await self._socket.send({"type": "websocket.send", "text": message.decode()})
        except TimeoutError as error:
            raise _Slow from error

    async def _close(self, closing: _Closing) -> None:
        try:
            await self._socket.close(closing.code, closing.reason)
        except WebSocketDisconnect:
            log.debug("the client was faster: it has gone before it was closed with %d", closing.code)


async def _outcome(way: asyncio.Task[_Closing | None]) -> _Closing | None:
    """Raises WebSocketDisconnect."""
    try:
        return await way
    except WebSocketDisconnect:
        raise
    except _Slow:
        return _Closing(CloseCode.TOO_SLOW, "it has taken nothing for too long: resume after the last event")
    except Exception:
        log.exception("a WebSocket crashed")
        return _Closing(CloseCode.CRASHED, "something failed inside the service: resume after the last event")


def _code_of(last: Notice) -> CloseCode:
    """Of a stream that ends with an error."""
    return CloseCode(4000 + last.data["status"])
