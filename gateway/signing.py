"""Signed claims that need no store: what the gateway signed for a purpose, it knows again until it expires."""

import base64
import binascii
import hashlib
import hmac
import time

import orjson

from shared.types import JSON


class Signer:
    """`secret` is shared by all gateways; a token signed for one purpose is none for another."""

    def __init__(self, secret: bytes, purpose: str) -> None:
        self._key = hmac.digest(secret, f"trunkline {purpose}".encode(), hashlib.sha256)

    def sign(self, claims: JSON, *, seconds: float) -> str:
        payload = orjson.dumps({**claims, "expires": time.time() + seconds})
        return f"{_encode(payload)}.{_encode(self._mac(payload))}"

    def verify(self, token: str) -> JSON | None:
        """The claims; None when the token is not ours, or is no longer valid."""
        try:
            payload, mac = (base64.urlsafe_b64decode(part + "==") for part in token.split("."))
        except (ValueError, binascii.Error):
            return None
        if not hmac.compare_digest(mac, self._mac(payload)):
            return None
        claims: JSON = orjson.loads(payload)
        return claims if claims["expires"] > time.time() else None

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
