"""The keys that an issuer signs its tokens with, read from its JSON Web Key Set."""

import asyncio
import logging
import time
from typing import Any

import httpx
import orjson
from jwt import PyJWK, PyJWTError

from shared.errors import AppError, ErrorCode
from shared.net.client import BodyRefused, read_capped
from shared.types import JSON

log = logging.getLogger("trunkline.gateway.auth")

FETCH_SECONDS = 3.0
PAUSE_SECONDS = 10.0
"""Between two reads of the set, whatever tokens name: nobody makes us ask the issuer more often."""
OLD_SECONDS = 24 * 3600.0
"""How long the last set counts while its issuer is away."""
MAX_BYTES = 256 * 1024


class KeySet:
    """Read when it is first needed, again after `seconds`, and when a token names a key that is not in it.

    The address comes from the operator's settings and may be in a private network, so no guard checks it.
    """

    def __init__(self, url: str, *, seconds: float) -> None:
        self._url = url
        self._seconds = seconds
        self._keys: dict[str | None, Any] = {}
        self._read_at = self._tried_at = -OLD_SECONDS
        self._one_at_a_time = asyncio.Lock()

    async def key(self, key_id: str | None) -> Any | None:
        """The RSA key of this id; None: there is none. A token without an id means the only key that there is.

        Raises AppError UNAVAILABLE where no set could be read.
        """
        if time.monotonic() - self._read_at > self._seconds or key_id not in self._keys:
            await self._refresh(key_id)
        if time.monotonic() - self._read_at > OLD_SECONDS:
            raise AppError(
                ErrorCode.UNAVAILABLE, "The keys of the tokens' issuer cannot be read.", retry_after=PAUSE_SECONDS
            )
        return self._keys.get(key_id)

    async def _refresh(self, key_id: str | None) -> None:
        async with self._one_at_a_time:
            now = time.monotonic()
            if now - self._tried_at < PAUSE_SECONDS:
                return
            self._tried_at = now
            try:
                self._keys = _usable(await self._fetch())
            except (httpx.HTTPError, BodyRefused, ValueError) as error:
                log.warning("the keys of %s cannot be read, the last ones count: %r", self._url, error)
                return
            self._read_at = now
            log.info(
                "%s has %d keys%s", self._url, len(self._keys), "" if key_id in self._keys else ", not the one asked"
            )

    async def _fetch(self) -> JSON:
        async with (
            asyncio.timeout(FETCH_SECONDS),
            httpx.AsyncClient(timeout=FETCH_SECONDS, trust_env=False) as client,
            client.stream("GET", self._url, headers={"Accept-Encoding": "gzip"}) as response,
        ):
            response.raise_for_status()
            found = orjson.loads(await read_capped(response, MAX_BYTES))
        if not isinstance(found, dict) or not isinstance(found.get("keys"), list):
            raise ValueError("it is no JSON Web Key Set")
        return found


def _usable(found: JSON) -> dict[str | None, Any]:
    """RSA keys for signatures, by id; by None too, where there is only one. Others in the set do no harm."""
    keys: dict[str | None, Any] = {}
    for each in found["keys"]:
        if (key := _usable_key(each)) is not None:
            keys[each.get("kid")] = key
    if len(keys) == 1:
        keys[None] = next(iter(keys.values()))
    return keys


def _usable_key(found: Any) -> Any | None:
    fits = isinstance(found, dict) and found.get("kty") == "RSA" and found.get("use", "sig") == "sig"
    named = fits and isinstance(found.get("kid"), str | None)
    if not named or found.get("alg", "RS256") != "RS256" or "d" in found:
        return None
    try:
        return PyJWK(found, "RS256").key
    except (PyJWTError, ValueError, TypeError) as error:
        log.warning("key %r of the tokens' issuer cannot be read: %r", found.get("kid"), error)
        return None
