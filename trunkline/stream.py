"""Following a stream of events over as many connections as it takes.

The server is exact: after `Last-Event-ID` it sends what follows, all of it, once. So nothing is compared here.
"""

import json
import random
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager

import httpx

from trunkline.errors import APIError, ConnectionLostError
from trunkline.models import TERMINAL, Event
from trunkline.sse import Frame, frames

Connect = Callable[[str | None], AbstractContextManager[httpx.Response]]
"""Opens the stream after an id (None: from its start)."""

MAX_PAUSE_SECONDS = 10.0
TRY_AGAIN = (408, 429, 500, 502, 503, 504)


class EventStream(Iterator[Event]):
    """Events in order, each once. It ends with the run's terminal event where it follows a run, else never by itself.

    Raises APIError where the server refuses, ConnectionLostError when nothing was heard of it for `patience_seconds`
    (None: never). `on_drop` is told why a connection ended before its time; the next one is opened after a pause.
    `last_id` is the id of the last event given: a later stream may go on after it.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        run_id: str | None = None,
        last_id: str | None = None,
        patience_seconds: float | None = None,
        on_drop: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.last_id = last_id
        self._connect = connect
        self._run_id = run_id
        self._patience = patience_seconds
        self._on_drop = on_drop
        self._retry_seconds = 1.0
        self._heard = time.monotonic()
        self._drops = 0
        self._events = self._follow()

    def __next__(self) -> Event:
        return next(self._events)

    def close(self) -> None:
        """Ends the connection; the iterator gives no more."""
        self._events.close()

    def _follow(self) -> Generator[Event, None, None]:
        while True:
            try:
                for event in self._one_connection():
                    self.last_id = event.id
                    yield event
                    if event.run_id == self._run_id and event.type in TERMINAL:
                        return
                return
            except _DroppedError as drop:
                self._wait(drop)

    def _one_connection(self) -> Iterator[Event]:
        """Returns when there is nothing more to come, which only 204 says; all other ends are drops."""
        reason = "the connection ended"
        try:
            with self._connect(self.last_id) as response:
                _check(response)
                if response.status_code == httpx.codes.NO_CONTENT:
                    return
                for frame in frames(response.iter_bytes()):
                    self._note(frame)
                    if frame.id:
                        yield Event.parse(frame.id, json.loads(frame.data))
                    elif frame.event == "error":
                        reason = f"the server says: {_detail(frame.data)}"
        except httpx.TransportError as error:
            raise _DroppedError(str(error) or type(error).__name__) from error
        raise _DroppedError(reason)

    def _note(self, frame: Frame) -> None:
        self._heard = time.monotonic()
        self._drops = 0
        if frame.retry_ms is not None:
            self._retry_seconds = frame.retry_ms / 1000

    def _wait(self, drop: "_DroppedError") -> None:
        self._on_drop(drop.reason)
        pause = min(self._retry_seconds * 2**self._drops, MAX_PAUSE_SECONDS) * random.uniform(0.7, 1)  # noqa: S311
        pause = max(pause, drop.retry_after)
        self._drops += 1
        if self._patience is not None and time.monotonic() + pause - self._heard > self._patience:
            raise ConnectionLostError(f"The server cannot be reached ({drop.reason}).", self.last_id)
        time.sleep(pause)


class _DroppedError(Exception):
    """A connection ended early; another one may go on."""

    def __init__(self, reason: str, retry_after: float = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    response.read()
    refusal = APIError.of(response)
    if response.status_code in TRY_AGAIN:
        raise _DroppedError(refusal.detail, retry_after(response))
    raise refusal


def retry_after(response: httpx.Response) -> float:
    """Seconds, from a Retry-After header; 0 where there is none (its date form is not used by the server)."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() else 0.0


def _detail(data: str) -> str:
    try:
        body = json.loads(data)
    except ValueError:
        return data
    return str(body.get("detail") or body) if isinstance(body, dict) else data
