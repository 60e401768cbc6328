"""Following a stream over as many connections as it takes: what to ask for, what to give, when it is over. No I/O.

The server is exact: after `Last-Event-ID` it sends what follows, all of it, once. So ids are not compared here.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from trunkline.errors import APIError, ConnectionLost, UnexpectedAnswer, error_of, refusal, unexpected
from trunkline.models import TERMINAL, Event
from trunkline.sse import Decoder, Frame

EVENT_STREAM = "text/event-stream"
PATIENCE_SECONDS = 120.0
"""How long a reader is patient who does not say: a deploy and a restart pass unnoticed."""
FIRST_PAUSE_SECONDS = 1.0
SHORTEST_PAUSE_SECONDS = 0.001
MAX_PAUSE_SECONDS = 10.0
TRY_AGAIN = (408, 429, 500, 502, 503, 504)


class Following:
    """The state of one stream. For each connection: `headers`, then `answered`, `take` for each chunk, `dropped`.

    It `has_ended` with the terminal event of `run_id`, or where the server says (204) that the caller's own `last_id`
    was that. `last_id` is the id of the last event given. `patience_seconds` counts from the first drop after
    something was heard; None: for ever. `on_drop` is told why a connection ended before its time.
    """

    def __init__(
        self,
        *,
        run_id: str | None,
        last_id: str | None,
        patience_seconds: float | None,
        on_drop: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.last_id = last_id or None
        self._ended = False
        self._moved = False
        self._run_id = run_id
        self._patience = patience_seconds
        self._on_drop = on_drop
        self._clock = clock
        self._decoder = Decoder()
        self._retry_seconds = FIRST_PAUSE_SECONDS
        self._drops = 0
        self._silent_since: float | None = None
        self._gap: tuple[Any, Any] | None = None
        self._refused: APIError | None = None
        self._reason: str | None = None

    def has_ended(self) -> bool:
        return self._ended

    def headers(self) -> dict[str, str]:
        """Of the next request."""
        return {"accept": EVENT_STREAM, **({"last-event-id": self.last_id} if self.last_id else {})}

    def answered(self, response: httpx.Response) -> bool:
        """Whether there is something to read. The body of anything but 200 has been read.

        Raises APIError where the server refuses for good.
        """
        self._decoder = Decoder()
        if response.status_code == httpx.codes.OK:
            if not response.headers.get("content-type", "").startswith(EVENT_STREAM):
                raise unexpected(response)
            return True
        if response.status_code == httpx.codes.NO_CONTENT and self._run_id and self.last_id and not self._moved:
            self._ended = True
            return False
        error = unexpected(response) if response.is_success else refusal(response)
        if response.status_code not in TRY_AGAIN:
            raise error
        self._refused, self._reason = error, error.detail
        return False

    def take(self, chunk: bytes) -> Iterator[Event]:
        """The events that are complete with this chunk. To be read to its end, or to the end of the stream.

        Raises APIError where the stream itself says that it is refused.
        """
        for frame in self._decoder.feed(chunk):
            event = self._read(frame)
            if event is not None:
                yield event
            if self._ended:
                return

    def dropped(self, reason: str = "the connection ended") -> float:
        """The connection is over: seconds until the next one is to be opened. Raises ConnectionLost."""
        reason, refused = self._reason or reason, self._refused
        self._reason = self._refused = None
        self._on_drop(reason)
        now = self._clock()
        self._silent_since = now if self._silent_since is None else self._silent_since
        longest = min(self._retry_seconds * 2.0**self._drops, MAX_PAUSE_SECONDS)
        pause = longest * random.uniform(0.7, 1)  # noqa: S311
        pause = max(pause, refused.retry_after or 0 if refused else 0)
        self._drops = min(self._drops + 1, 10)
        if self._patience is not None and now + pause - self._silent_since > self._patience:
            raise ConnectionLost(f"The stream is cut and cannot be resumed ({reason}).", self.last_id) from refused
        return pause

    def _read(self, frame: Frame) -> Event | None:
        if frame.retry_ms is not None:
            self._retry_seconds = max(frame.retry_ms / 1000, SHORTEST_PAUSE_SECONDS)
        if not frame.data:
            return None
        body = _object(frame.data)
        if frame.id:
            return self._event(Event.parse({**body, "id": frame.id}))
        match frame.event:
            case "gap":
                return self._gap_of(body)
            case "error":
                self._error(body)
            case "keep_alive":
                self._heard()
        return None

    def _event(self, event: Event) -> Event:
        self._heard()
        self.last_id, self._moved = event.id, True
        self._ended = event.run_id == self._run_id and event.type in TERMINAL
        return event

    def _gap_of(self, body: dict[str, Any]) -> Event | None:
        """A resume before the next event announces the same gap again."""
        gap = (body.get("after"), body.get("until"))
        self._heard()
        if gap == self._gap:
            return None
        self._gap = gap
        data = {"after": gap[0], "until": gap[1]}
        return Event.parse({**body, "type": "gap", "id": self.last_id or "", "data": data})

    def _error(self, body: dict[str, Any]) -> None:
        """408: the server closes the stream, and it may be opened again. 5xx: it holds, and goes on."""
        error = error_of(body)
        if error.status not in TRY_AGAIN:
            raise error
        if error.status == httpx.codes.REQUEST_TIMEOUT:
            self._heard()
        self._reason = f"the server says: {error.detail}"

    def _heard(self) -> None:
        self._drops = 0
        self._silent_since = self._reason = None


def _object(data: str) -> dict[str, Any]:
    """Raises UnexpectedAnswer."""
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        detail = f"The stream sent something that is no event: {data[:80]!r}. Is the URL right?"
        raise UnexpectedAnswer({"code": "unexpected_answer", "detail": detail})
    return body
