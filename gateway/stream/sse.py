"""A thread's entries as Server-Sent Events, over raw ASGI: what a browser's EventSource and its like depend on."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.errors import redis_away, status_of
from gateway.stream.entries import Entry, EventName, Gap, text_of
from gateway.stream.fanout import Cursor
from gateway.stream.reader import Reader
from shared.config import StreamSettings
from shared.errors import AppError, ErrorCode

log = logging.getLogger("trunkline.gateway.stream")

STREAMING = "trunkline.streaming"
"""In the ASGI scope of a stream: the server cuts it when it stops (gateway.server)."""

HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # nginx with gzip on would hold every event until the end
}
STUCK_SECONDS = 30.0  # a client that stops reading is cut so long after the stream should have ended


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What a client asked to follow, and the endpoint's names for events."""

    thread_id: str
    run_id: str | None
    event_name: EventName


class EventStream(Response):
    """An open stream. `opening` gives the cursor, or None when the client has all of a finished run already.

    It ends after the run's terminal event or an `error` event. In any other case, a crash too, it is cut: a clean end
    would tell the client that there is no more. `news` is set when it is worth looking again.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        request: StreamRequest,
        opening: asyncio.Task[Cursor | None],
        *,
        news: asyncio.Event,
        reader: Reader,
        limits: StreamSettings,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(HEADERS)
        self._request = request
        self._opening = opening
        self._news = news
        self._reader = reader
        self._limits = limits
        self._time = asyncio.get_running_loop().time
        self._opened = self._spoke = self._busy = self._time()
        self._ended = False
        self._told_waiting = False
        self._told_outage = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[STREAMING] = True
        gone = asyncio.create_task(_disconnected(receive))
        gone.add_done_callback(self._wake)
        self._opening.add_done_callback(self._wake)
        try:
            async with asyncio.timeout(self._limits.max_seconds + STUCK_SECONDS):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await self._send_events(send, gone)
                if not gone.done():
                    await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            log.info("a client of thread %s has stopped reading: its stream is cut", self._request.thread_id)
        finally:
            gone.cancel()
            self._close()

    async def _send_events(self, send: Send, gone: asyncio.Task[None]) -> None:
        """One send for all that is there. A slow client is slowed down for by `send`: nothing piles up for it."""
        chunk = self._first()
        while not gone.done():
            if chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if self._ended:
                return
            if not chunk:
                await self._wait_for_news()
            chunk = self._next()

    def _first(self) -> bytes:
        return b"retry: %d\n\n" % self._limits.retry_ms

    def _next(self) -> bytes:
        """What is to be sent now, if anything. Sets `_ended` with the last of it."""
        now = self._time()
        try:
            if now >= self._deadline():
                raise _timed_out()
            chunk = self._entries()
        except AppError as error:
            self._ended = True
            return self._error(error)
        if chunk:
            self._busy = now
        else:
            chunk = self._notice(now)
        if chunk:
            self._spoke = now
        return chunk

    def _entries(self) -> bytes:
        """The frames of what has happened. Raises AppError when the stream turns out not to exist."""
        cursor = self._opening.result() if self._opening.done() else None
        if cursor is None:
            self._ended = self._opening.done()
            return b""
        found = cursor.take()
        if isinstance(found, Gap):
            return self._frame("gap", after=text_of(found.after), until=text_of(found.until))
        if self._request.run_id and found:
            self._ended = found[-1].ends_run
        return self._shown(found)

    def _shown(self, found: list[Entry]) -> bytes:
        name = self._request.event_name
        return b"".join([entry.frame(name) for entry in found])

    def _notice(self, now: float) -> bytes:
        """What is to be said about a silence."""
        if self._reader.away and self._told_outage != self._reader.outages:
            self._told_outage = self._reader.outages
            return self._error(redis_away())
        if not self._told_waiting and self._nothing_happened():
            self._told_waiting = True
            return self._frame("waiting")
        if now >= self._spoke + self._limits.keep_alive_seconds:
            return self._frame("keep_alive")
        return b""

    def _nothing_happened(self) -> bool:
        cursor = self._opening.result() if self._opening.done() else None
        return cursor is not None and cursor.at_start

    def _error(self, error: AppError) -> bytes:
        return self._frame("error", status=status_of(error.code), code=error.code, detail=error.detail)

    def _frame(self, event: str, **members: Any) -> bytes:
        """A system event. It carries no id, so that it does not move the client's place."""
        data = {"type": event, "thread_id": self._request.thread_id, "run_id": self._request.run_id, **members}
        return b"event: %b\ndata: %b\n\n" % (event.encode(), orjson.dumps(data))

    def _deadline(self) -> float:
        return min(self._opened + self._limits.max_seconds, self._busy + self._limits.idle_timeout_seconds)

    async def _wait_for_news(self) -> None:
        until = min(self._deadline(), self._spoke + self._limits.keep_alive_seconds)
        timer = asyncio.get_running_loop().call_at(until, self._news.set)
        try:
            await self._news.wait()
        finally:
            timer.cancel()
        self._news.clear()

    def _wake(self, _: object) -> None:
        self._news.set()

    def _close(self) -> None:
        opening = self._opening
        if opening.cancel() or opening.cancelled() or opening.exception():
            return
        if cursor := opening.result():
            cursor.close()


def _timed_out() -> AppError:
    return AppError(
        ErrorCode.STREAM_TIMEOUT,
        "The stream was idle or open for too long and is closed. Open it again with the last id to go on.",
    )


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
