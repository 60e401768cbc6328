"""Idempotency-Key: a request that is sent again gets the ids of the first time, and so its answer.

Only ids are reserved, before anything is done with them. Whatever is then done is idempotent by those ids, so that a
gateway that dies halfway, or fifty copies at once, do no harm.
"""

import hashlib
import re
from typing import Any

import orjson
from redis.asyncio import Redis

from gateway.errors import invalid
from shared import keys
from shared.errors import AppError, ErrorCode, FieldError
from shared.redis import patiently

KEPT_SECONDS = 24 * 3600
KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Idempotency:
    def __init__(self, client: Redis, *, patience_seconds: float) -> None:
        self._client = client
        self._patience_seconds = patience_seconds

    async def reserve(self, workspace: str, key: str | None, request: list[Any], new_id: str) -> str:
        """The id to work with: `new_id`, or the one that the same request with this key was given before.

        `request`: the operation and all that matters in its body. Raises AppError: INVALID_REQUEST (not a key),
        IDEMPOTENCY_CONFLICT (the key was used for another request).
        """
        if key is None:
            return new_id
        if not KEY.fullmatch(key):
            detail = "should be 1 to 255 visible ASCII characters"
            raise invalid([FieldError(place="header.Idempotency-Key", detail=detail)])
        digest = hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).hexdigest()
        name, mine = keys.idempotency(workspace, key), f"{digest} {new_id}"
        kept = await patiently(
            lambda: self._client.set(name, mine, nx=True, get=True, ex=KEPT_SECONDS), self._patience_seconds
        )
        first_digest, _, first_id = str(kept or mine).partition(" ")
        if first_digest != digest:
            raise AppError(
                ErrorCode.IDEMPOTENCY_CONFLICT,
                f"Idempotency-Key {key!r} was used for another request in the last 24 hours. Use a new key.",
            )
        return first_id
