"""Who calls: an API key, the cookie of somebody who followed the printed link, or a stream ticket."""

import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from gateway.signing import Signer
from shared.config import Settings
from shared.errors import AppError, ErrorCode

DEFAULT_WORKSPACE = "default"
LOCAL = "local"
"""The key's id where nobody is asked for a key."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SESSION_SECONDS = 14 * 24 * 3600
STREAM_TICKET_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, and for which workspace. `key_id` is the same for a key for ever, and tells nothing of it."""

    workspace: str
    key_id: str


class Authenticator:
    """Credentials -> Principal. Keys are kept as their SHA-256 only."""

    def __init__(self, settings: Settings, keys: list[str]) -> None:
        self._enabled = settings.auth.enabled
        self._check_host = not settings.auth.allow_insecure
        self._digests = [_digest(key) for key in keys]
        self._first_key_id = _key_id(self._digests[0]) if keys else LOCAL
        self._origins = {*settings.api.cors_origins} if settings.api.cors_credentials else set()
        if settings.api.public_url:
            self._origins.add(_origin(settings.api.public_url))
        # Without a key nobody is asked for a ticket or a cookie, so a secret that no other gateway knows will do.
        secret = keys[0].encode() if keys else secrets.token_bytes(32)
        self._sessions = Signer(secret, "session")
        self._tickets = Signer(secret, "stream ticket")
        # Cookies are shared by all ports of a host, so that two stacks on one machine need two names.
        self.cookie_name = f"trunkline_{hashlib.sha256(b'cookie ' + secret).hexdigest()[:8]}"

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Reads the key file. Raises AppError(INVALID_CONFIG) when there is no key at all."""
        keys = [key.get_secret_value() for key in settings.auth.keys]
        if settings.auth.enabled and settings.key_file.exists():
            keys.insert(0, settings.key_file.read_text().strip())
        if settings.auth.enabled and not any(keys):
            raise AppError(
                ErrorCode.INVALID_CONFIG,
                f"No API key: {settings.key_file} is not there and auth.keys is empty. scripts/up makes the file; "
                "else write a secret of your own into it, or set auth.enabled = false on a loopback address.",
            )
        return cls(settings, [key for key in keys if key])

    def caller(self, request: HTTPConnection, *, ticket: str | None = None) -> Principal:
        """Raises AppError UNAUTHORIZED or FORBIDDEN."""
        if not self._enabled:
            self._refuse_foreign_page(request)
            return Principal(DEFAULT_WORKSPACE, LOCAL)
        if key := _presented_key(request):
            return self._of_key(key)
        if ticket is not None:
            return self._of_ticket(ticket)
        if cookie := request.cookies.get(self.cookie_name):
            return self._of_cookie(request, cookie)
        raise AppError(
            ErrorCode.UNAUTHORIZED, "This needs an API key: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`."
        )

    def new_session(self, workspace: str) -> str:
        """The value of a session cookie."""
        return self._sessions.sign({"workspace": workspace}, seconds=SESSION_SECONDS)

    def new_stream_ticket(self, caller: Principal) -> str:
        claims = {"workspace": caller.workspace, "key_id": caller.key_id}
        return self._tickets.sign(claims, seconds=STREAM_TICKET_SECONDS)

    def _of_key(self, key: str) -> Principal:
        digest = _digest(key)
        # Compares with all of them, whichever fits: the time taken tells nothing.
        if sum(hmac.compare_digest(digest, known) for known in self._digests) == 0:
            raise AppError(ErrorCode.UNAUTHORIZED, "This API key is not known here.")
        return Principal(DEFAULT_WORKSPACE, _key_id(digest))

    def _of_ticket(self, ticket: str) -> Principal:
        claims = self._tickets.verify(ticket)
        if claims is None:
            detail = "The ticket is not valid any more. Get another one from POST /api/stream-tickets."
            raise AppError(ErrorCode.UNAUTHORIZED, detail)
        return Principal(claims["workspace"], claims["key_id"])

    def _of_cookie(self, request: HTTPConnection, cookie: str) -> Principal:
        claims = self._sessions.verify(cookie)
        if claims is None:
            raise AppError(ErrorCode.UNAUTHORIZED, "The session has ended. Open a new link, or send an API key.")
        # A WebSocket has no method, is bound by no CORS, and may do anything.
        if request.scope.get("method") not in SAFE_METHODS and not self._from_own_page(request):
            raise AppError(ErrorCode.FORBIDDEN, "With a cookie, only the gateway's own pages may do this.")
        # The link stands for the first key, and so does what is done by it: a key's budget has no second door.
        return Principal(claims["workspace"], self._first_key_id)

    def _from_own_page(self, request: HTTPConnection) -> bool:
        """Browsers tell the origin of every request that changes something, and pages cannot forge it."""
        origin = request.headers.get("origin")
        if origin is None:
            return request.headers.get("sec-fetch-site") == "same-origin"
        scheme = {"ws": "http", "wss": "https"}.get(request.url.scheme, request.url.scheme)
        return origin in self._origins or origin == f"{scheme}://{request.url.netloc}"

    def _refuse_foreign_page(self, request: HTTPConnection) -> None:
        """Where no key is asked for, any web page that its user visits could reach the gateway through the browser.

        Its Origin gives it away, or, when it made its own name point at this machine (DNS rebinding), the Host.
        """
        if not self._check_host:
            return
        host = request.url.hostname or ""
        foreign = "origin" in request.headers and not self._from_own_page(request)
        if foreign or not (is_local_name(host) or any(urlsplit(own).hostname == host for own in self._origins)):
            raise AppError(
                ErrorCode.FORBIDDEN,
                "Without keys (auth.enabled = false) the gateway answers only under a local address, api.public_url "
                "or api.cors_origins, and only its own pages.",
            )


def _presented_key(request: HTTPConnection) -> str | None:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return request.headers.get("x-api-key")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _key_id(digest: bytes) -> str:
    return digest.hex()[:12]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def is_local_name(host: str) -> bool:
    """Whether it is a name of this machine, or an address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
