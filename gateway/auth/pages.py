"""Which web pages may do something with what a browser sends by itself: a cookie, or nothing at all."""

import ipaddress
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from shared.config import Settings
from shared.errors import AppError, ErrorCode

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HTTP_OF_SOCKETS = {"ws": "http", "wss": "https"}


class Pages:
    def __init__(self, settings: Settings) -> None:
        self._check_host = not settings.auth.allow_insecure
        self._origins = {*settings.api.cors_origins} if settings.api.cors_credentials else set()
        if settings.api.public_url:
            self._origins.add(_origin(settings.api.public_url))

    def check_cookie(self, connection: HTTPConnection) -> None:
        """Raises AppError FORBIDDEN for a change that another's page asks for.

        A WebSocket has no method, is bound by no CORS, and may do anything.
        """
        if connection.scope.get("method") not in SAFE_METHODS and not self._is_own(connection):
            raise AppError(ErrorCode.FORBIDDEN, "With a cookie, only the gateway's own pages may do this.")

    def check_sign_in(self, connection: HTTPConnection) -> None:
        """Raises AppError FORBIDDEN for another's page: its visitor would work under its key. Who is no page may."""
        if "origin" in connection.headers and not self._is_own(connection):
            raise AppError(ErrorCode.FORBIDDEN, "Only the gateway's own pages may sign somebody in.")

    def check_open(self, connection: HTTPConnection) -> None:
        """Where no key is asked for, any web page that its user visits could reach the gateway through the browser.

        Its Origin gives it away, or, when it made its own name point at this machine (DNS rebinding), the Host.
        Raises AppError FORBIDDEN.
        """
        if not self._check_host:
            return
        host = connection.url.hostname or ""
        foreign = "origin" in connection.headers and not self._is_own(connection)
        if foreign or not (is_local_name(host) or any(urlsplit(own).hostname == host for own in self._origins)):
            raise AppError(
                ErrorCode.FORBIDDEN,
                "Without keys (auth.enabled = false) the gateway answers only under a local address, api.public_url "
                "or api.cors_origins, and only its own pages.",
            )

    def _is_own(self, connection: HTTPConnection) -> bool:
        """Browsers tell the origin of every request that changes something, and pages cannot forge it."""
        origin = connection.headers.get("origin")
        if origin is None:
            return connection.headers.get("sec-fetch-site") == "same-origin"
        scheme = _HTTP_OF_SOCKETS.get(connection.url.scheme, connection.url.scheme)
        return origin in self._origins or origin == f"{scheme}://{connection.url.netloc}"


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
