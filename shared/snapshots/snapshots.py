"""Snapshots of a sandbox's files: parts in the store of large values, and a line in Redis once all of them are there.

A part that no snapshot names within an hour is deleted, as other large values are: what a worker began and did not
finish is never used, and leaves nothing. Each thread has parts of its own, also of what it was forked from.
"""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Self

import orjson
from redis.asyncio import Redis

from shared.config import SnapshotSettings
from shared.keys import ThreadKeys
from shared.payloads.blobs import Ref
from shared.payloads.payloads import Payloads
from shared.redis import patiently
from shared.scripts import Scripts

PART_BYTES = 8 * 1024**2


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`parts` of a tar.gz, in their order. `fingerprint` of what is in it, `taken_at` in seconds since 1970."""

    run_id: str
    taken_at: float
    fingerprint: str
    parts: tuple[Ref, ...]

    @classmethod
    def parse(cls, line: str | bytes) -> Self:
        known = orjson.loads(line)
        return cls(**{**known, "parts": tuple(Ref.parse(part) for part in known["parts"])})

    def line(self) -> bytes:
        parts = [part.as_json() for part in self.parts]
        facts = {"run_id": self.run_id, "taken_at": self.taken_at, "fingerprint": self.fingerprint}
        return orjson.dumps({**facts, "parts": parts})

    @property
    def size(self) -> int:
        """In bytes, compressed."""
        return sum(part.size for part in self.parts)


class Snapshots:
    """Of all threads. `patience_seconds`: how long to wait for a Redis that is away (None: as long as it takes)."""

    def __init__(
        self, client: Redis, payloads: Payloads, settings: SnapshotSettings, *, patience_seconds: float | None
    ) -> None:
        self._client = client
        self._payloads = payloads
        self._settings = settings
        self._patience_seconds = patience_seconds
        self._scripts = Scripts(client, __package__, "keep", patience_seconds=patience_seconds)

    async def all(self, thread_id: str) -> list[Snapshot]:
        """Oldest first."""
        key = ThreadKeys(thread_id).snapshots
        lines = await patiently(lambda: self._client.lrange(key, 0, -1), self._patience_seconds)
        return [Snapshot.parse(line) for line in lines]

    async def last(self, thread_id: str, *, up_to: str | None = None) -> Snapshot | None:
        """The newest one; `up_to`: of that run, or of one before it."""
        found = await self.all(thread_id)
        if up_to is not None and found:
            runs = ThreadKeys(thread_id).runs
            order: list[Any] = await patiently(lambda: self._client.zrange(runs, 0, -1), self._patience_seconds)
            later = set(order[order.index(up_to) + 1 :]) if up_to in order else set()
            found = [snapshot for snapshot in found if snapshot.run_id not in later]
        return found[-1] if found else None

    async def keep(
        self, thread_id: str, run_id: str, fingerprint: str, pieces: AsyncIterator[bytes]
    ) -> Snapshot | None:
        """Takes one, after `run_id`. None: it took so long that its first part was cleaned up.

        Raises StoreAway, AppError INVALID_CONFIG, and what `pieces` raise: then there is none.
        """
        parts = [await self._payloads.put_part(thread_id, data) async for data in _parts(pieces)]
        return await self._name(thread_id, Snapshot(run_id, time.time(), fingerprint, tuple(parts)))

    async def content(self, snapshot: Snapshot) -> AsyncIterator[bytes]:
        """Raises Lost, StoreAway, AppError INVALID_CONFIG."""
        for part in snapshot.parts:
            yield await self._payloads.get(part)

    async def copy(self, thread_id: str, new_thread: str, *, up_to: str | None = None) -> None:
        """Gives a new thread what `last` finds; nothing where it has one already. Raises as `content`."""
        snapshot = await self.last(thread_id, up_to=up_to)
        if snapshot is None or await self.all(new_thread):
            return
        parts = [await self._payloads.put_part(new_thread, data) async for data in self.content(snapshot)]
        await self._name(new_thread, Snapshot(snapshot.run_id, snapshot.taken_at, snapshot.fingerprint, tuple(parts)))

    async def delete(self, thread_id: str) -> None:
        """All of a thread, for when its data is deleted. Raises StoreAway."""
        for snapshot in await self.all(thread_id):
            for part in snapshot.parts:
                await self._payloads.delete(part)
        await patiently(lambda: self._client.delete(ThreadKeys(thread_id).snapshots), self._patience_seconds)

    async def _name(self, thread_id: str, snapshot: Snapshot) -> Snapshot | None:
        k = ThreadKeys(thread_id)
        markers = [part.marker for part in snapshot.parts]
        named = await self._scripts.call(
            "keep", [k.snapshots, k.timers], [snapshot.line(), self._settings.keep, *markers]
        )
        return snapshot if named else None


async def _parts(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    part = bytearray()
    async for piece in pieces:
        part += piece
        while len(part) >= PART_BYTES:
            yield bytes(part[:PART_BYTES])
            del part[:PART_BYTES]
    if part:
        yield bytes(part)
