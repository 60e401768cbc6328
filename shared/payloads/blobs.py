"""A reference to a large result, and what a store of such results can do."""

import secrets
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Protocol, Self

from shared.errors import AppError, ErrorCode
from shared.ids import shard_of
from shared.types import JSON


@dataclass(frozen=True, slots=True)
class Ref:
    """`sha256` says what it is, `upload` which write of it: no two writers ever have a place in common.

    So nobody who cleans up after a writer that died can touch what another one has written since.
    """

    store: str
    thread_id: str
    sha256: str
    upload: str
    size: int
    """In bytes."""

    @classmethod
    def of(cls, store: str, thread_id: str, data: bytes) -> Self:
        return cls(store, thread_id, sha256(data).hexdigest(), secrets.token_hex(6), len(data))

    @classmethod
    def parse(cls, known: JSON) -> Self:
        return cls(**{name: known[name] for name in ("store", "thread_id", "sha256", "upload", "size")})

    @classmethod
    def parse_known(cls, known: JSON | None) -> Self | None:
        return cls.parse(known) if known else None

    @classmethod
    def of_marker(cls, marker: str) -> Self:
        _, thread_id, place = marker.split("|")
        store, _, name = place.partition("/")
        digest, _, upload = name.partition(".")
        return cls(store, thread_id, digest, upload, 0)

    @property
    def name(self) -> str:
        return f"{self.sha256}.{self.upload}"

    @property
    def path(self) -> str:
        return f"{shard_of(self.thread_id):02x}/{self.thread_id}/{self.name}"

    @property
    def marker(self) -> str:
        """Stands on the thread's agenda (keys.timers) until a transition has named the blob."""
        return f"blob|{self.thread_id}|{self.store}/{self.name}"

    def as_json(self) -> JSON:
        return asdict(self)

    def shown(self) -> JSON:
        """As clients see it."""
        return shown(self.sha256, self.size)


def shown(digest: str, size: int) -> JSON:
    return {"sha256": digest, "bytes": size}


class BlobStore(Protocol):
    """Blobs by reference. Raises Lost (it is not there), StoreAway (try again later), AppError INVALID_CONFIG."""

    async def put(self, ref: Ref, data: bytes) -> None:
        """Whole or not at all; may be repeated."""
        ...

    async def get(self, ref: Ref) -> bytes: ...

    async def delete(self, ref: Ref) -> None:
        """And whatever an interrupted `put` has left. May be repeated."""
        ...

    async def close(self) -> None: ...


class TooLarge(AppError):
    """`what` is above the limit. Another try would give the same."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(
            ErrorCode.RESULT_TOO_LARGE,
            f"{what} has {size:,} bytes as JSON, and payloads.max_bytes allows {limit:,}. Write the data to a file in "
            "the sandbox or to a store of your own, and give where it is instead.",
        )


class Lost(AppError):
    """Named by a run, and nowhere any more."""

    def __init__(self, ref: Ref, what: str) -> None:
        super().__init__(
            ErrorCode.RESULT_LOST,
            f"A result of {ref.size:,} bytes was kept in the store {ref.store!r} as {ref.path}, and {what}. "
            "Bring it back, or fork the run from before the step.",
        )


class StoreAway(AppError):
    """The store did not answer, or had no room."""

    def __init__(self, store: str, why: Any) -> None:
        super().__init__(
            ErrorCode.UNAVAILABLE, f"The store of large results ({store}) did not answer: {why}", retry_after=5
        )
