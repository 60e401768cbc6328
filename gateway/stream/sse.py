"""A subscription as Server-Sent Events, over raw ASGI: what a browser's EventSource and its like depend on."""

import asyncio
import logging

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.stream.entries import Entry
from gateway.stream.subscription import Notice, Subscription

log = logging.getLogger("trunkline.gateway.stream")

STREAMING = "trunkline.streaming"
"""In the ASGI scope of a stream: the server cuts it when it stops (gateway.server)."""

HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # nginx with gzip on would hold every event until the end
}
KEEP_ALIVE = b":\n"
"""A comment of one line: clients that know little of SSE do not take it for an event."""
STUCK_SECONDS = 30.0  # a client that stops reading is cut so long after the stream should have ended


class EventStream(Response):
    """An open stream.

    It ends after the run's terminal event or an `error` event. In any other case, a crash too, it is cut: a clean end
    would tell the client that there is no more.
    """

    media_type = "text/event-stream"

    def __init__(self, subscription: Subscription) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(HEADERS)
        self._subscription = subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[STREAMING] = True
        subscription = self._subscription
        gone = asyncio.create_task(_disconnected(receive))
        gone.add_done_callback(lambda _: subscription.wake())
        try:
            async with asyncio.timeout(subscription.limits.max_seconds + STUCK_SECONDS):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await self._send_events(send, gone)
                if not gone.done():
                    await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            log.info("a client of %s has stopped reading: its stream is cut", subscription.wanted.about)
        finally:
            gone.cancel()
            subscription.close()

    async def _send_events(self, send: Send, gone: asyncio.Task[None]) -> None:
        """One send for all that is there. A slow client is slowed down for by `send`: nothing piles up for it."""
        subscription = self._subscription
        chunk = self._first()
        while not gone.done():
            if chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if subscription.ended:
                return
            found = subscription.next()
            if found is None and not subscription.ended:
                await subscription.wait()
            chunk = self._frames(found)

    def _frames(self, found: list[Entry] | Notice | None) -> bytes:
        match found:
            case None:
                return b""
            case Notice():
                return self._noticed(found)
        return self._shown(found)

    def _first(self) -> bytes:
        return b"retry: %d\n\n" % self._subscription.limits.retry_ms

    def _shown(self, found: list[Entry]) -> bytes:
        show = self._subscription.wanted.show
        return b"".join([entry.shown(show) for entry in found])

    def _noticed(self, notice: Notice) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (notice.event.encode(), orjson.dumps(notice.data))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
