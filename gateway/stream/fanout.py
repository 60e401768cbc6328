"""One reader, many subscribers: a stream's new entries are read once, into a small ring that its cursors share.

A cursor that the ring no longer covers (a late joiner, a laggard) reads pages until it does, from Redis or what is in
SQL only, so that nothing is ever kept for anybody. Whatever is published only says "look": a stream's truth is what
Redis has in it.
"""

import asyncio
import logging
import time
from collections.abc import Container
from dataclasses import dataclass
from functools import partial

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.metrics import GatewayMetrics
from gateway.stream.entries import START, Entry, Gap, Position, Source, following, position_of, text_of
from gateway.stream.feed import Feed, Wake
from gateway.stream.listener import Listener
from gateway.stream.older import Older
from gateway.stream.reader import Reader
from shared.errors import AppError
from shared.tasks import cancel

log = logging.getLogger("trunkline.gateway.stream")

PAGE_ENTRIES = 200  # entries in one read

STALE_SECONDS = 30.0
"""A feed that was not read for so long looks whether events have left the stream meanwhile. Less than they stay there
(archive.keep_events_seconds)."""

UNREADABLE = (RedisError, LookupError, ValueError, AppError)
"""What reading a stream raises that is none (a key of another type, entries that are not ours), or whose older part is
away."""


class Fanout:
    """All feeds of a gateway process: one reading and one subscriber connection, whatever their number."""

    def __init__(
        self,
        client: Redis,
        older: Older,
        *,
        ring_entries: int,
        check_seconds: float,
        metrics: GatewayMetrics | None = None,
    ) -> None:
        self.older = older
        self.metrics = metrics or GatewayMetrics()
        self.reader = Reader(client, on_change=self._wake_all)
        self._listener = Listener(
            client, on_news=self._on_news, on_subscribed=self._on_subscribed, on_lost=self._verify_all
        )
        self._ring_entries = ring_entries
        self._check_seconds = check_seconds
        self._feeds: dict[bytes, Feed] = {}
        self._dirty: dict[Feed, bool] = {}
        """Feeds to read, and whether to look where the stream ends as well."""
        self._work = asyncio.Event()
        self._pages: dict[tuple[Feed, Position], Page] = {}
        self._turning: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it is cancelled. Raises what crashed, if something does."""
        parts = (self.reader.run(), self._listener.listen(), self._listener.send(), self._read_dirty(), self._check())
        tasks = {asyncio.create_task(part) for part in parts}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await cancel(tasks)

    async def follow(
        self,
        source: Source,
        position: Position | None,
        wake: Wake,
        *,
        owners: Container[str] | None = None,
        project: str | None = None,
    ) -> "Cursor":
        """A cursor after `position` (None: the stream's end), as soon as news are heard and that end is known.

        Close it.
        """
        channel = source.channel.encode()
        feed = self._feeds.get(channel)
        if feed is None:
            feed = self._feeds[channel] = Feed(source, self._ring_entries)
            self._listener.subscribe(channel)
        cursor = Cursor(self, feed, position or START, wake, owners=owners, project=project)
        checked = asyncio.get_running_loop().create_future()
        feed.checks.append(checked)
        self._look(feed, verify=True)
        try:
            await checked
        except BaseException:
            cursor.close()
            raise
        if position is None:
            cursor.position = feed.tail
        return cursor

    def page(self, feed: Feed, position: Position) -> "Page":
        """What comes after a position, not beyond what the feed knows; shared by all who ask for the same."""
        key = (feed, position)
        page = self._pages.get(key)
        if page is None:
            self.metrics.stream_pages.inc()
            page = self._pages[key] = Page(feed.tail, asyncio.get_running_loop().create_future())
            turning = asyncio.create_task(self._turn_page(key, page))
            self._turning.add(turning)
            turning.add_done_callback(self._turning.discard)
        return page

    def leave(self, feed: Feed, wake: Wake) -> None:
        if wake in feed.followers:
            self.metrics.subscribers.dec()
        feed.followers.discard(wake)
        channel = feed.source.channel.encode()
        if not feed.followers and self._feeds.get(channel) is feed:
            del self._feeds[channel]
            self._dirty.pop(feed, None)
            feed.forget_end()
            self._listener.unsubscribe(channel)

    def resting_end(self, feed: Feed, thread_id: str) -> Position:
        """Where a thread that is not in Redis ends. Raises _Later, then the feed is looked at when SQL has answered."""
        asked = feed.resting
        if asked is None:
            asked = feed.resting = asyncio.create_task(self.older.end(thread_id))
            asked.add_done_callback(partial(self._on_end, feed))
        if not asked.done():
            raise _Later
        if asked.exception():
            feed.resting = None
        return asked.result() or START

    async def _turn_page(self, key: tuple[Feed, Position], page: "Page") -> None:
        try:
            found = await self._read_page(*key, page.until)
        except Exception as error:  # noqa: BLE001 - it is for those who wait for the page
            page.found.set_exception(error)
        else:
            page.found.set_result(found)
        finally:
            del self._pages[key]

    async def _read_page(self, feed: Feed, position: Position, until: Position) -> list[Entry] | Gap:
        """What comes next, from SQL where a thread's stream no longer reaches."""
        thread_id, stream, end = feed.source.thread_id, feed.source.stream, text_of(until)
        asked = self.reader.ask("XRANGE", stream, f"({text_of(position)}", end, "COUNT", PAGE_ENTRIES)
        if thread_id is None:
            return _entries(await asked)
        # Asked after it: what has not left by now had not then.
        known = self.reader.ask(*feed.source.end)
        entries = _entries(await asked)
        last_id, kept_from = await known
        reaches = position_of(kept_from)
        if last_id is not None and following(position) >= reaches:
            return entries or Gap(position, until)
        below = following(until) if last_id is None else min(reaches, following(until))
        older = await self.older.page(thread_id, position, below, PAGE_ENTRIES)
        return older or entries or Gap(position, until)

    def _on_news(self, channel: bytes) -> None:
        if feed := self._feeds.get(channel):
            self._look(feed, verify=False)

    def _on_subscribed(self, channel: bytes) -> None:
        if feed := self._feeds.get(channel):
            feed.heard = True
            self._look(feed, verify=True)

    def _verify_all(self) -> None:
        for feed in self._feeds.values():
            self._look(feed, verify=True)

    def _wake_all(self) -> None:
        for feed in self._feeds.values():
            feed.wake()

    def _on_end(self, feed: Feed, asked: asyncio.Task[Position | None]) -> None:
        if not asked.cancelled():
            self._look(feed, verify=True)

    def _look(self, feed: Feed, *, verify: bool) -> None:
        self._dirty[feed] = self._dirty.get(feed, False) or verify
        self._work.set()

    async def _check(self) -> None:
        """Against a message that never came."""
        while True:
            await asyncio.sleep(self._check_seconds)
            await self._listener.check()
            self._verify_all()

    async def _read_dirty(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            dirty, self._dirty = self._dirty, {}
            reads = [_Read(self, feed, verify=verify) for feed, verify in dirty.items() if feed.heard]
            for read in reads:
                if await read.finish():
                    self._look(read.feed, verify=False)


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, up to where the feed ended when they were asked for."""

    until: Position
    found: asyncio.Future[list[Entry] | Gap]


class _Read:
    """One look at one feed: begun for all dirty feeds before the first is awaited, so that one pipeline serves all."""

    def __init__(self, fanout: Fanout, feed: Feed, *, verify: bool) -> None:
        self.feed = feed
        self._fanout = fanout
        reader, now = fanout.reader, asyncio.get_running_loop().time()
        verify = verify or now > feed.read_at + STALE_SECONDS
        feed.read_at = now
        self._checks: list[asyncio.Future[None]] = []
        self._end = self._entries = None
        if verify or not feed.known:
            self._checks, feed.checks = feed.checks, []
            self._end = reader.ask(*feed.source.end)
        if feed.known:
            after = f"({text_of(feed.tail)}"
            self._entries = reader.ask("XRANGE", feed.source.stream, after, "+", "COUNT", PAGE_ENTRIES)

    async def finish(self) -> bool:
        """Puts what was found into the feed, and tells its followers. Whether there may be more to read."""
        feed, more = self.feed, False
        try:
            found = _entries(await self._entries) if self._entries else []
            end, reaches = await self._ends()
        except _Later:
            feed.checks[:0] = self._checks
            return False
        except UNREADABLE as error:
            log.error("the stream of %s cannot be read: %r", feed.source.name, error)
            feed.error = error
        else:
            feed.error = None
            if end is not None and self._is_elsewhere(end, reaches, found):
                feed.reset(end)
                more = True
            elif found:
                if found[0].previous > feed.tail:  # those between them are gone
                    feed.reset(found[0].previous)
                feed.extend(found)
                self._fanout.metrics.stream_lag.observe(max(0.0, time.time() - found[-1].position[0] / 1000))
                more = len(found) == PAGE_ENTRIES
        feed.wake()
        for check in self._checks:
            if not check.done():
                check.set_result(None)
        return more

    def _is_elsewhere(self, end: Position, reaches: Position, found: list[Entry]) -> bool:
        """Whether what is known of the stream and what was found do not lead to its end."""
        feed = self.feed
        gone = end > feed.tail and not found
        return not feed.known or end < feed.tail or reaches > following(feed.tail) or gone

    async def _ends(self) -> tuple[Position | None, Position]:
        """Where the stream ends, if that was asked for, and from where on Redis has it. Raises _Later."""
        if self._end is None:
            return None, START
        answer, thread_id = await self._end, self.feed.source.thread_id
        if thread_id is None:
            return position_of(answer), START
        last_id, kept_from = answer
        if last_id is None:
            end = self._fanout.resting_end(self.feed, thread_id)
            return end, following(end)
        self.feed.forget_end()
        return position_of(last_id), position_of(kept_from)


class _Later(Exception):
    """SQL is asked, and nobody else's stream waits for its answer."""


class Cursor:
    """A place in a stream that moves on: a subscriber. `owners`, `project`: only their entries."""

    def __init__(
        self,
        fanout: Fanout,
        feed: Feed,
        position: Position,
        wake: Wake,
        *,
        owners: Container[str] | None,
        project: str | None,
    ) -> None:
        self.position = position
        self._fanout = fanout
        self._feed = feed
        self._wake = wake
        self._owners = owners
        self._project = project
        self._page: Page | None = None
        self._beyond_gap: list[Entry] = []
        feed.followers.add(wake)
        fanout.metrics.subscribers.inc()

    @property
    def at_start(self) -> bool:
        """Whether there is nothing in the stream."""
        return self._feed.tail == START

    def take(self) -> list[Entry] | Gap:
        """What comes next; nothing when there is nothing yet: `wake` is called when it is worth asking again.

        Raises whatever makes the stream unreadable though Redis is there.
        """
        while found := self._next():
            if isinstance(found, Gap):
                self.position, self._page = found.until, None
                return found
            self.position = found[-1].position
            if mine := [entry for entry in found if self._is_wanted(entry)]:
                return mine
        return []

    def _is_wanted(self, entry: Entry) -> bool:
        of_owners = self._owners is None or entry.owner in self._owners
        return of_owners and self._project in (None, entry.project)

    def close(self) -> None:
        self._fanout.leave(self._feed, self._wake)

    def _next(self) -> list[Entry] | Gap | None:
        feed = self._feed
        if feed.error:
            raise feed.error
        if self._beyond_gap:
            found, self._beyond_gap = self._beyond_gap, []
            return found
        if self.position > feed.tail:
            return Gap(self.position, feed.tail)
        if self._page is None:
            in_ring = feed.since(self.position)
            if in_ring is not None:
                return in_ring
            self._page = self._fanout.page(feed, self.position)
            self._page.found.add_done_callback(lambda _: self._wake())
        page = self._page
        if not page.found.done():
            return None
        self._page = None
        read = page.found.result()
        if isinstance(read, list) and read and read[0].previous > self.position:
            self._beyond_gap = read
            return Gap(self.position, read[0].previous)
        return read or Gap(self.position, page.until)


def _entries(found: list[tuple[bytes, dict[bytes, bytes]]]) -> list[Entry]:
    return [Entry.parse(entry_id, fields) for entry_id, fields in found]
