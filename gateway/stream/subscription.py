"""What one subscriber is told, and when: the events, and what is to be said about silences, gaps and the end.

How it is told is its transport's: gateway/stream/sse.py, gateway/stream/ws.py.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.errors import redis_away, status_of
from gateway.stream.entries import Entry, Gap, Projection, text_of
from gateway.stream.fanout import Cursor, Wake
from gateway.stream.reader import Reader
from shared.config import StreamSettings
from shared.errors import AppError, ErrorCode
from shared.types import JSON

Opening = Callable[[Wake], Awaitable[Cursor | None]]
"""Gives the cursor, or None when the client has all of a finished run already. Raises AppError NOT_FOUND."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asked to follow."""

    about: JSON
    """Says so in whatever is said about the stream."""
    show: Projection
    run_id: str | None = None
    """The stream ends with this run."""
    awaited: bool = False
    """Whether it may be that there is nothing to follow yet."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What is said about a stream and is not in it: it has no id, so that it does not move the client's place."""

    event: str
    data: JSON


class Subscription:
    """`ended` is set with the last that there is to tell."""

    def __init__(
        self, wanted: Wanted, opening: Opening, *, reader: Reader, limits: StreamSettings, idle_limit: bool
    ) -> None:
        self.wanted = wanted
        self.limits = limits
        self.ended = False
        self._news = asyncio.Event()
        self.opening = asyncio.ensure_future(opening(self._news.set))
        self.opening.add_done_callback(lambda _: self._news.set())
        self._reader = reader
        self._idle_seconds = limits.idle_timeout_seconds if idle_limit else limits.max_seconds
        self._time = asyncio.get_running_loop().time
        self._opened = self._spoke = self._busy = self._time()
        self._told_waiting = False
        self._told_outage = 0
        self._why_ended: AppError | None = None

    def next(self) -> list[Entry] | Notice | None:
        """What is to be told now; None: nothing, `wait`. Raises whatever makes the stream unreadable."""
        now = self._time()
        try:
            if self._why_ended:
                raise self._why_ended
            if now >= self._deadline():
                raise _timed_out()
            found = self._entries()
        except AppError as error:
            self.ended = True
            return self._error(error)
        if found:
            self._busy = now
        else:
            found = self._silence(now)
        if found:
            self._spoke = now
        return found

    async def wait(self) -> None:
        """Until it is worth asking again."""
        until = min(self._deadline(), self._spoke + self.limits.keep_alive_seconds)
        timer = asyncio.get_running_loop().call_at(until, self._news.set)
        try:
            await self._news.wait()
        finally:
            timer.cancel()
        self._news.clear()

    def end(self, error: AppError) -> None:
        """It is told, and no more."""
        self._why_ended = error
        self.wake()

    def wake(self) -> None:
        self._news.set()

    def close(self) -> None:
        opening = self.opening
        if opening.cancel() or opening.cancelled() or opening.exception():
            return
        if cursor := opening.result():
            cursor.close()

    def _entries(self) -> list[Entry] | Notice | None:
        """What has happened. Raises AppError when the stream turns out not to exist."""
        cursor = self.opening.result() if self.opening.done() else None
        if cursor is None:
            self.ended = self.opening.done()
            return None
        found = cursor.take()
        if isinstance(found, Gap):
            return self._notice("gap", after=text_of(found.after), until=text_of(found.until))
        if self.wanted.run_id and found:
            self.ended = found[-1].ends_run
        return found or None

    def _silence(self, now: float) -> Notice | None:
        """What is to be said about it."""
        if self._reader.away and self._told_outage != self._reader.outages:
            self._told_outage = self._reader.outages
            return self._error(redis_away())
        if not self._told_waiting and self._nothing_happened():
            self._told_waiting = True
            return self._notice("waiting")
        if now >= self._spoke + self.limits.keep_alive_seconds:
            return self._notice("keep_alive")
        return None

    def _nothing_happened(self) -> bool:
        if not self.opening.done():
            return self.wanted.awaited and not self._reader.away
        cursor = self.opening.result()
        return cursor is not None and cursor.at_start

    def _error(self, error: AppError) -> Notice:
        return self._notice("error", status=status_of(error.code), code=error.code, detail=error.detail)

    def _notice(self, event: str, **members: object) -> Notice:
        return Notice(event, {"type": event, **self.wanted.about, **members})

    def _deadline(self) -> float:
        return min(self._opened + self.limits.max_seconds, self._busy + self._idle_seconds)


def _timed_out() -> AppError:
    return AppError(
        ErrorCode.STREAM_TIMEOUT,
        "The stream was idle or open for too long and is closed. Open it again with the last id to go on.",
    )
