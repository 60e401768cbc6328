"""What a gateway holds of one stream that somebody follows: its newest entries, once for all."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from gateway.stream.entries import START, Entry, Position, Source

Wake = Callable[[], None]
"""Tells a follower that it is worth asking again."""

RING_BYTES = 4 << 20  # of events in one stream's ring


class Feed:
    """One stream, followed. The ring holds all entries after `start`, up to `tail`."""

    def __init__(self, source: Source, ring_entries: int) -> None:
        self.source = source
        self.start = self.tail = START
        self.known = False
        """Whether `tail` has been asked for."""
        self.heard = False
        """Whether news of it are told."""
        self.followers: set[Wake] = set()
        self.checks: list[asyncio.Future[None]] = []
        """To be resolved by a read that began after they were put here."""
        self.error: Exception | None = None
        """Why the stream cannot be read, though Redis is there."""
        self.read_at = 0.0
        """When it was read last, by the loop's clock."""
        self.resting: asyncio.Task[Position | None] | None = None
        """Asks SQL where it ends, of a thread that is not in Redis: once, for there it does not change."""
        self._ring: deque[Entry] = deque()
        self._ring_entries = ring_entries
        self._ring_bytes = 0

    def since(self, position: Position) -> list[Entry] | None:
        """What came after a position; None when the ring does not reach back so far."""
        if position < self.start:
            return None
        found = []
        for entry in reversed(self._ring):
            if entry.position <= position:
                break
            found.append(entry)
        return found[::-1]

    def extend(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._ring.append(entry)
            self._ring_bytes += len(entry.event)
            self.tail = entry.position
        while len(self._ring) > self._ring_entries or self._ring_bytes > RING_BYTES:
            oldest = self._ring.popleft()
            self._ring_bytes -= len(oldest.event)
            self.start = oldest.position

    def reset(self, tail: Position) -> None:
        """The stream ends elsewhere than we knew: at first, or because Redis lost what it had."""
        self._ring.clear()
        self._ring_bytes = 0
        self.start = self.tail = tail
        self.known = True

    def forget_end(self) -> None:
        """It is in Redis, or nobody follows it any more: what SQL says of its end does not count."""
        if self.resting is not None:
            self.resting.cancel()
            self.resting = None

    def wake(self) -> None:
        for wake in tuple(self.followers):
            wake()
