"""What every request passes through. Pure ASGI: `BaseHTTPMiddleware` would turn a stream's crash into a clean end."""

import logging
import re
import time
from http import HTTPStatus

from fastapi.exceptions import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import CLIENT_CLOSED_REQUEST, internal_problem, problem, status_of, too_large
from shared.ids import new_id
from shared.log import bound

access_log = logging.getLogger("trunkline.gateway.access")
log = logging.getLogger("trunkline.gateway")

REQUEST_ID = "trunkline.request_id"
"""The request's id in the ASGI scope."""

_FILES = re.compile(r"/api(/v1)?/agent/[^/]+/files(/|$)")
_CLIENT_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")

_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Exchanges:
    """Gives each request its id, each answer the common headers, and the access log one line for both.

    Besides, a path's trailing slash is taken away: it makes no difference anywhere.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = scope[REQUEST_ID] = given if _CLIENT_GIVEN_ID.fullmatch(given) else new_id()
        scope["path"] = scope["path"].rstrip("/") or "/"
        exchange = (_Exchange if scope["type"] == "http" else _SocketExchange)(request_id, receive, send)
        with bound(request_id=request_id):
            try:
                await self.app(scope, exchange.receive, exchange.send)
            finally:
                exchange.log(scope)


class _Exchange:
    def __init__(self, request_id: str, receive: Receive, send: Send) -> None:
        self._request_id = request_id
        self._receive = receive
        self._send = send
        self._began = time.monotonic()
        self._status = HTTPStatus.INTERNAL_SERVER_ERROR.value
        self._complete = self._client_gone = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._client_gone = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begin(message)
        elif not message.get("more_body", False):
            self._complete = True
        await self._send(message)

    def _begin(self, message: Message) -> None:
        self._status = message["status"]
        headers = MutableHeaders(scope=message)
        headers["X-Request-Id"] = self._request_id
        for name, value in _SECURITY_HEADERS.items():
            headers.setdefault(name, value)

    def log(self, scope: Scope) -> None:
        """Without the query: it may hold a ticket."""
        status = CLIENT_CLOSED_REQUEST if self._client_gone and not self._complete else self._status
        level = logging.DEBUG if scope["path"].startswith("/health") and status < 500 else logging.INFO
        milliseconds = (time.monotonic() - self._began) * 1000
        access_log.log(level, "%s %s %d %.1f ms", scope["method"], _path(scope), status, milliseconds)


class _SocketExchange(_Exchange):
    """A WebSocket's: its status is 101 and the code that it was closed with, or that of the answer in its place."""

    _closed = HTTPStatus.SWITCHING_PROTOCOLS.value

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._closed = message.get("code", self._closed)
        return message

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "websocket.accept":
                self._status = HTTPStatus.SWITCHING_PROTOCOLS.value
            case "websocket.http.response.start":
                self._begin(message)
            case "websocket.close":
                self._closed = message.get("code", self._closed)
        await self._send(message)

    def log(self, scope: Scope) -> None:
        milliseconds = (time.monotonic() - self._began) * 1000
        access_log.info("WS %s %d %d %.1f ms", _path(scope), self._status, self._closed, milliseconds)


def _path(scope: Scope) -> str:
    """As it was sent, so that nobody can write lines of their own into the log."""
    return str(scope["raw_path"], "latin-1")


class Faults:
    """A crash becomes a problem document with an id. Where an answer has begun, the server cuts the connection."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, send_on)
        except Exception:
            log.exception("request %s: %s %s crashed", scope[REQUEST_ID], scope["method"], _path(scope))
            if started:
                raise
            await internal_problem(scope[REQUEST_ID])(scope, receive, send)


class BodyLimit:
    """413 for a body that is too large: at once where its length is told, else as soon as it has grown too large."""

    def __init__(self, app: ASGIApp, max_bytes: int, max_upload_bytes: int) -> None:
        self.app = app
        self._max_bytes = max_bytes
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        upload = scope["type"] == "http" and scope["method"] == "PUT" and _FILES.match(scope["path"])
        max_bytes = self._max_upload_bytes if upload else self._max_bytes
        length = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        if length.isdigit() and int(length) > max_bytes:
            # Not closed: the server reads the rest and forgets it. Closed, the client's system could see its unread
            # body refused before it has the answer.
            await problem(too_large(max_bytes))(scope, receive, send)
            return
        received = 0

        async def receive_on() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > max_bytes:
                error = too_large(max_bytes)  # FastAPI makes a 400 of all but its own exceptions here
                raise HTTPException(status_of(error.code), error.detail)
            return message

        await self.app(scope, receive_on, send)
