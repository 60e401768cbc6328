"""Ends what is open for a key that is revoked: each gateway asks now and then, for all that it has open at once."""

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary

from gateway.auth.keyring import KeyRing, key_revoked
from shared.errors import AppError


class Open(Protocol):
    def end(self, error: AppError) -> None: ...


class Revocations:
    """`check_seconds`: how long a stream goes on at the most after its key was revoked. While Redis is away, on."""

    def __init__(self, ring: KeyRing, check_seconds: float) -> None:
        self._ring = ring
        self._check_seconds = check_seconds
        self._open: WeakKeyDictionary[Open, str] = WeakKeyDictionary()

    def watch(self, stream: Open, key_id: str) -> None:
        """For as long as anybody holds it."""
        self._open[stream] = key_id

    def asked_of(self) -> set[str]:
        """The keys of all that is open."""
        return set(self._open.values())

    async def keep(self) -> None:
        """Asks until cancelled."""
        while True:
            await asyncio.sleep(self._check_seconds)
            await self.check()

    async def check(self) -> None:
        """Never raises."""
        revoked = await self._ring.revoked(self.asked_of())
        for stream, key_id in list(self._open.items()):
            if key_id in revoked:
                stream.end(key_revoked())
