"""Ends what is open for a key that is revoked or a session that is over, or for credentials that have expired: each
gateway looks now and then, for all that it has open at once."""

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary

from gateway.auth import Principal, credentials_ended
from gateway.auth.keyring import KeyRing, key_revoked
from shared.errors import AppError


class Open(Protocol):
    def end(self, error: AppError) -> None: ...


class Revocations:
    """`check_seconds`: how long a stream goes on at the most after its credentials have ended. While both Redis and SQL
    are away nobody knows of a revocation."""

    def __init__(self, ring: KeyRing, check_seconds: float) -> None:
        self._ring = ring
        self._check_seconds = check_seconds
        self._open: WeakKeyDictionary[Open, Principal] = WeakKeyDictionary()

    def watch(self, stream: Open, caller: Principal) -> None:
        """For as long as anybody holds it."""
        self._open[stream] = caller

    def asked_of(self) -> set[str]:
        """The keys and sessions of all that is open."""
        return {each for caller in self._open.values() for each in caller.revocable}

    async def keep(self) -> None:
        """Asks until cancelled."""
        while True:
            await asyncio.sleep(self._check_seconds)
            await self.check()

    async def check(self) -> None:
        """Never raises."""
        asked = self.asked_of()
        if not asked:
            return
        revoked = await self._ring.revoked(asked) | await self._ring.revoked_for_sql(asked)
        for stream, caller in list(self._open.items()):
            if caller.ended:
                stream.end(credentials_ended())
            elif caller.revocable & revoked:
                stream.end(key_revoked())
