"""API keys of the SQL database, as a gateway remembers them."""

import asyncio
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from math import ceil

from redis.asyncio import Redis

from gateway.auth.failures import Failures
from gateway.auth.principal import Principal
from gateway.auth.remembered import FRESH_SECONDS, LOAD_SECONDS, Remembered
from gateway.counters import Counters, unless_away
from gateway.patience import PATIENCE_SECONDS
from shared import keys as names
from shared.db import keys
from shared.db.engine import Database
from shared.db.keys import Key
from shared.errors import AppError, ErrorCode
from shared.key_format import digest, is_key
from shared.redis import patiently

log = logging.getLogger("trunkline.gateway.auth")

WRITE_USES_SECONDS = 30.0
"""Pause between writes of when keys were used last."""


class KeyRing:
    """A revoked key is refused at once, because each request asks Redis whether it is; with Redis away after
    FRESH_SECONDS, when SQL is asked again. With SQL away too, after `remember_seconds`."""

    def __init__(self, db: Database, counters: Counters, failures: Failures, *, remember_seconds: float) -> None:
        self._db = db
        self._counters = counters
        self._failures = failures
        self._remember_seconds = remember_seconds
        self._keys = Remembered(self._load, max_seconds=remember_seconds)
        self._by_id = Remembered(self._load_id, max_seconds=remember_seconds)
        self._used: dict[str, datetime] = {}

    async def principal(self, key: str, address: str) -> Principal:
        """Raises AppError UNAUTHORIZED; RATE_LIMITED where the address may have nothing more looked up; UNAVAILABLE."""
        if not is_key(key):
            raise AppError(ErrorCode.UNAUTHORIZED, "This API key is not known here. Was all of it copied?")
        name = digest(key).hex()
        if not self._keys.knows(name):
            await self._failures.check(address)
        return await self._caller(await self._keys.get(name))

    async def of_id(self, workspace: str, key_id: str) -> Principal:
        """Of a key that was shown before. Raises AppError UNAUTHORIZED, UNAVAILABLE."""
        return await self._caller(await self._by_id.get(f"{workspace} {key_id}"))

    async def _caller(self, found: Key | None) -> Principal:
        if found is None:
            raise AppError(ErrorCode.UNAUTHORIZED, "This API key is not known here.")
        await self._check(found)
        self._used[found.id] = datetime.now(UTC)
        ends_at = found.expires_at.timestamp() if found.expires_at else None
        return Principal(found.workspace, found.id, found.scopes, found.project, ends_at=ends_at)

    async def check_not_revoked(self, *ids: str) -> None:
        """Of keys and sessions. Raises AppError UNAUTHORIZED. A Redis that is away says nothing."""
        if await self.revoked(ids):
            raise key_revoked()

    async def revoked(self, key_ids: Iterable[str]) -> set[str]:
        """Those of the keys and sessions that are, by questions sent together. A Redis that is away says nothing."""
        asked = list(key_ids)
        questions = asyncio.gather(*(self._counters.get(names.revoked(key_id)) for key_id in asked))
        marks = await unless_away(self._counters, questions) or [None] * len(asked)
        return {key_id for key_id, mark in zip(asked, marks, strict=True) if mark is not None}

    async def revoked_for_sql(self, key_ids: Iterable[str]) -> set[str]:
        """As `revoked`, of what SQL knows: Redis may have been away when it was to be told. A SQL that is away says
        nothing."""
        try:
            async with asyncio.timeout(LOAD_SECONDS), self._db.connect() as c:
                return await keys.revoked_among(c, key_ids)
        except (AppError, TimeoutError) as error:
            log.warning("SQL is away, and is not asked which keys are revoked: %r", error)
            return set()

    async def revoke(self, client: Redis, revoked: list[str]) -> None:
        """Tells all gateways of keys that SQL knows as revoked, or not at all any more. Idempotent."""
        seconds = int(self._remember_seconds + 4 * FRESH_SECONDS)
        for key_id in revoked:
            await patiently(partial(client.set, names.revoked(key_id), "1", ex=seconds), PATIENCE_SECONDS)

    async def end_session(self, client: Redis, session: str, seconds: float) -> None:
        """Tells all gateways, for as long as its cookie would count."""
        await patiently(partial(client.set, names.revoked(session), "1", ex=ceil(seconds)), PATIENCE_SECONDS)

    async def keep(self) -> None:
        """Writes when keys were used, until cancelled."""
        while True:
            await asyncio.sleep(WRITE_USES_SECONDS)
            await self.write_uses()

    async def write_uses(self) -> None:
        """Never raises: what cannot be written now is written with the next ones."""
        written, self._used = self._used, {}
        if not written:
            return
        try:
            async with self._db.begin() as c:
                await keys.used(c, written)
        except AppError as error:
            self._used = written | self._used
            log.warning("when %d keys were used last is not written yet: %s", len(written), error.detail)

    async def _load(self, name: str) -> Key | None:
        async with self._db.connect() as c:
            return await keys.by_digest(c, name)

    async def _load_id(self, name: str) -> Key | None:
        workspace, _, key_id = name.partition(" ")
        async with self._db.connect() as c:
            return await keys.get(c, workspace, key_id)

    async def _check(self, key: Key) -> None:
        if key.revoked_at is not None:
            raise key_revoked()
        if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
            raise AppError(ErrorCode.UNAUTHORIZED, f"This API key expired at {key.expires_at:%Y-%m-%d %H:%M} UTC.")
        await self.check_not_revoked(key.id)


def key_revoked() -> AppError:
    return AppError(ErrorCode.UNAUTHORIZED, "This API key was revoked, or the session signed out.")
