"""Blobs in Redis, among their thread's keys."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.client import NEVER_DECODE

from shared.keys import ThreadKeys
from shared.payloads.blobs import Lost, Ref
from shared.redis import patiently

Elsewhere = Callable[[str, str], Awaitable[bytes | None]]
"""Of an evicted thread (its id), the blob of a name."""


class RedisBlobs:
    """`patience_seconds`: how long to wait for a Redis that is away (None: for ever)."""

    def __init__(self, client: Redis, *, patience_seconds: float | None, elsewhere: Elsewhere | None = None) -> None:
        self._elsewhere = elsewhere
        self._client = client
        self._patience_seconds = patience_seconds

    async def put(self, ref: Ref, data: bytes) -> None:
        await patiently(lambda: self._client.set(_key(ref), data), self._patience_seconds)

    async def get(self, ref: Ref) -> bytes:
        raw: Any = partial(self._client.execute_command, "GET", _key(ref), **{NEVER_DECODE: True})
        data: bytes | None = await patiently(raw, self._patience_seconds)
        if data is None and self._elsewhere:
            data = await self._elsewhere(ref.thread_id, ref.name)
        if data is None:
            raise Lost(ref, "is not there any more")
        return data

    async def delete(self, ref: Ref) -> None:
        await patiently(lambda: self._client.unlink(_key(ref)), self._patience_seconds)

    async def close(self) -> None:
        """The client is not its own."""


def _key(ref: Ref) -> str:
    return ThreadKeys(ref.thread_id).blob(ref.name)
