"""Which values are kept by reference, and their life from the write to the transition that names them.

First a marker goes on the thread's agenda, then the blob is written, then a transition (commit, release, signal,
submit) names it and takes the marker away, in one script. A writer that dies in between leaves the marker, which comes
due after an hour: then the blob can be named no more, and is deleted.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Self

import orjson
from redis.asyncio import Redis

from shared.config import PayloadsSettings, Settings
from shared.errors import AppError, ErrorCode
from shared.keys import ThreadKeys
from shared.payloads.blobs import BlobStore, Lost, Ref, StoreAway, TooLarge
from shared.payloads.folder import FolderBlobs
from shared.payloads.in_redis import Elsewhere, RedisBlobs
from shared.redis import patiently
from shared.scripts import Scripts

UNNAMED_SECONDS = 3600

log = logging.getLogger("trunkline.payloads")


class Payloads:
    """`stores` by the name that references give; new blobs go where `settings` say.

    `patience_seconds`: how long a call waits for a store that is away (None: as long as it takes).
    """

    def __init__(
        self,
        client: Redis,
        stores: Mapping[str, BlobStore],
        settings: PayloadsSettings,
        *,
        patience_seconds: float | None,
    ) -> None:
        self._client = client
        self._stores = stores
        self._settings = settings
        self._patience_seconds = patience_seconds
        self._scripts = Scripts(client, __package__, "disown", patience_seconds=patience_seconds)

    @classmethod
    def over(
        cls,
        client: Redis,
        settings: Settings,
        *,
        patience_seconds: float | None,
        elsewhere: Elsewhere | None = None,
    ) -> Self:
        """`elsewhere`: where the blobs of evicted threads are.

        Raises AppError INVALID_CONFIG where the store's library is not installed.
        """
        chosen = settings.payloads
        stores: dict[str, BlobStore] = {
            "redis": RedisBlobs(client, patience_seconds=patience_seconds, elsewhere=elsewhere),
            "folder": FolderBlobs(settings.payload_folder),
        }
        if chosen.s3_bucket is not None:
            stores["s3"] = _open_s3(chosen.s3_bucket, chosen)
        return cls(client, stores, chosen, patience_seconds=patience_seconds)

    def large(self, value: Any) -> bool:
        return len(orjson.dumps(value)) > self._settings.inline_bytes

    def encoded(self, value: Any, what: str) -> bytes:
        """Raises TooLarge, which says `what`; TypeError for what is not JSON."""
        return self.checked(orjson.dumps(value), what)

    def checked(self, data: bytes, what: str) -> bytes:
        """Raises TooLarge."""
        if len(data) > self._settings.max_bytes:
            raise TooLarge(what, len(data), self._settings.max_bytes)
        return data

    async def kept(self, thread_id: str, data: bytes) -> Ref | None:
        """Stores what is above `inline_bytes`; it is there for an hour, and once it is named, with its thread."""
        return None if len(data) <= self._settings.inline_bytes else await self.put(thread_id, data)

    async def put(self, thread_id: str, data: bytes) -> Ref:
        """Stores a blob for an hour, in which a transition is to name it: in Redis, where the chosen store fails.

        Raises redis.RedisError.
        """
        store = self._settings.store if len(data) > self._settings.spill_bytes else "redis"
        try:
            return await self._put_in(store, thread_id, data)
        except AppError as error:
            log.error("a large result is kept in Redis instead: %s", error.detail)
            return await self._put_in("redis", thread_id, data)

    async def put_part(self, thread_id: str, data: bytes) -> Ref:
        """Stores a part of something too large for Redis, for an hour. Raises StoreAway, AppError INVALID_CONFIG."""
        return await self._put_in("s3" if self._settings.store == "s3" else "folder", thread_id, data)

    async def _put_in(self, store: str, thread_id: str, data: bytes) -> Ref:
        while True:
            ref = Ref.of(store, thread_id, data)
            await self._mark(ref)
            await self._stores[store].put(ref, data)
            if await self._marked(ref):
                return ref
            await self._stores[store].delete(ref)  # it was cleaned up after before it was there

    async def get(self, ref: Ref) -> bytes:
        """Raises Lost, StoreAway, AppError INVALID_CONFIG."""
        store = self._stores.get(ref.store)
        if store is None:
            detail = f"A result is kept in the store {ref.store!r}, of which payloads.{ref.store}_bucket says nothing."
            raise AppError(ErrorCode.INVALID_CONFIG, detail)
        data = await self._read(store, ref)
        if sha256(data).hexdigest() != ref.sha256:
            raise Lost(ref, "is damaged there")
        return data

    async def value(self, inline: Any, ref: Ref | None) -> Any:
        """What stands inline, or is kept under the reference. Raises as `get`."""
        return inline if ref is None else orjson.loads(await self.get(ref))

    async def copy(self, ref: Ref, thread_id: str) -> Ref:
        """In another thread, to be named there. Raises as `get`."""
        return await self.put(thread_id, await self.get(ref))

    async def delete(self, ref: Ref) -> None:
        """Raises StoreAway."""
        if ref.store in self._stores:
            await self._stores[ref.store].delete(ref)

    async def clean(self, marker: str) -> None:
        """A marker is due: what it stands for is deleted, unless it was named meanwhile. Raises StoreAway."""
        timers, gone = ThreadKeys(Ref.of_marker(marker).thread_id).timers, f"gone{marker[4:]}"
        if marker != gone and not await self._scripts.call("disown", [timers], [marker, gone]):
            return
        ref = Ref.of_marker(gone)
        if ref.store in self._stores:
            await self._stores[ref.store].delete(ref)
        await patiently(lambda: self._client.zrem(timers, gone), self._patience_seconds)

    async def close(self) -> None:
        for store in self._stores.values():
            await store.close()

    async def _mark(self, ref: Ref) -> None:
        async def mark() -> None:
            now, _ = await self._client.time()
            await self._client.zadd(ThreadKeys(ref.thread_id).timers, {ref.marker: (now + UNNAMED_SECONDS) * 1000})

        await patiently(mark, self._patience_seconds)

    async def _marked(self, ref: Ref) -> bool:
        timers = ThreadKeys(ref.thread_id).timers
        return await patiently(lambda: self._client.zscore(timers, ref.marker), self._patience_seconds) is not None

    async def _read(self, store: BlobStore, ref: Ref) -> bytes:
        deadline = None if self._patience_seconds is None else time.monotonic() + self._patience_seconds
        pause = 0.1
        while True:
            try:
                return await store.get(ref)
            except StoreAway as away:
                if deadline is not None and time.monotonic() + pause > deadline:
                    raise
                log.warning("%s", away.detail)
            await asyncio.sleep(pause)
            pause = min(2 * pause, 5.0)


def _open_s3(bucket: str, settings: PayloadsSettings) -> BlobStore:
    try:
        from shared.payloads.s3 import S3Blobs  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        detail = "payloads.s3_bucket needs boto3. Install it: pip install 'trunkline[s3]'."
        raise AppError(ErrorCode.INVALID_CONFIG, detail) from error
    return S3Blobs(bucket, prefix=settings.s3_prefix, endpoint=settings.s3_endpoint)
