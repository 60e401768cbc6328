"""Idempotency-Key: a request that is sent again gets the ids of the first time, and so its answer.

Only ids are reserved, before anything is done with them. Whatever is then done is idempotent by those ids, so that a
gateway that dies halfway, or fifty copies at once, do no harm.
"""

import hashlib
import re
import secrets
from typing import Any

import orjson
from redis.asyncio import Redis

from shared import keys
from shared.errors import AppError, ErrorCode
from shared.redis import patiently
from shared.tenant import Tenant

KEPT_SECONDS = 24 * 3600
KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Idempotency:
    def __init__(self, client: Redis, *, patience_seconds: float) -> None:
        self._client = client
        self._patience_seconds = patience_seconds

    async def reserve(self, tenant: Tenant, key: str | None, request: list[Any], new_id: str) -> str:
        """The id to work with: `new_id`, or the one that the same request with this key was given before.

        `request`: the operation and all that matters in its body. Raises AppError IDEMPOTENCY_CONFLICT where the key
        was used for another request.
        """
        if key is None:
            return new_id
        name, digest = keys.idempotency(str(tenant), key), _digest(request)
        mine = f"{digest} {new_id}"
        kept = await patiently(
            lambda: self._client.set(name, mine, nx=True, get=True, ex=KEPT_SECONDS), self._patience_seconds
        )
        return _reserved(str(kept or mine), key, digest)

    async def reserved(self, tenant: Tenant, key: str | None, request: list[Any]) -> str | None:
        """The id that the same request was given before, if any. Raises as `reserve`."""
        if key is None:
            return None
        name = keys.idempotency(str(tenant), key)
        kept = await patiently(lambda: self._client.get(name), self._patience_seconds)
        return None if kept is None else _reserved(str(kept), key, _digest(request))


def a_key(text: str) -> str:
    """Returns it. Raises ValueError."""
    if not KEY.fullmatch(text):
        raise ValueError("should be 1 to 255 visible ASCII characters")
    return text


def token(key: str | None, request: list[Any]) -> str:
    """Names a request, the same each time that it is sent again; without a key each one is another."""
    return secrets.token_hex(16) if key is None else _digest([key, request])[:32]


def _digest(request: list[Any]) -> str:
    return hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _reserved(kept: str, key: str, digest: str) -> str:
    first_digest, _, first_id = kept.partition(" ")
    if first_digest != digest:
        raise AppError(
            ErrorCode.IDEMPOTENCY_CONFLICT,
            f"Idempotency-Key {key!r} was used for another request in the last 24 hours. Use a new key.",
        )
    return first_id
