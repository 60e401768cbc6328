"""What every request passes through. Pure ASGI: `BaseHTTPMiddleware` would turn a stream's crash into a clean end."""

import logging
import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus

from fastapi.exceptions import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import CLIENT_CLOSED_REQUEST, internal_problem, problem, status_of, too_large
from gateway.metrics import METHODS, NO_ROUTE, GatewayMetrics
from gateway.stream.sse import STREAMING
from shared.config import ApiSettings
from shared.ids import new_id
from shared.log import bound
from shared.metrics import label
from shared.tracing import Attributes, Tracing

access_log = logging.getLogger("trunkline.gateway.access")
log = logging.getLogger("trunkline.gateway")

REQUEST_ID = "trunkline.request_id"
"""The request's id in the ASGI scope."""

_FILES = re.compile(r"/api(/v1)?/agent/[^/]+/files(/|$)")
_CLIENT_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")

_QUIET = ("/health", "/metrics")
"""What is asked for all the time: no line in the log, no trace."""
_API = re.compile(r"/api(/v1)?(?=/)")

_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Exchanges:
    """Gives each request its id, each answer the common headers, and tells log, metrics and traces of both.

    Besides, a path's trailing slash is taken away: it makes no difference anywhere.
    """

    def __init__(self, app: ASGIApp, settings: ApiSettings, metrics: GatewayMetrics, tracing: Tracing) -> None:
        self.app = app
        self._metrics = metrics
        self._tracing = tracing
        self._headers = dict(_SECURITY_HEADERS)
        if settings.hsts_max_age is not None:
            self._headers["Strict-Transport-Security"] = f"max-age={settings.hsts_max_age}; includeSubDomains"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = scope[REQUEST_ID] = given if _CLIENT_GIVEN_ID.fullmatch(given) else new_id()
        scope["path"] = scope["path"].rstrip("/") or "/"
        kind = _Exchange if scope["type"] == "http" else _SocketExchange
        exchange = kind(request_id, self._headers, receive, send)
        with bound(request_id=request_id), self._span(scope):
            try:
                await self.app(scope, exchange.receive, exchange.send)
            finally:
                exchange.log(scope)
                self._count(scope, exchange)

    def _span(self, scope: Scope) -> AbstractContextManager[None]:
        if scope["path"].startswith(_QUIET):
            return nullcontext()
        parent = Headers(scope=scope).get("traceparent")
        method = _method(scope)
        attributes = {"http.request.method": method, "url.path": _path(scope), REQUEST_ID: scope[REQUEST_ID]}
        return self._tracing.span(method, "server", attributes, parent=parent)

    def _count(self, scope: Scope, exchange: "_Exchange") -> None:
        route, method, status = _route(scope), label(_method(scope), METHODS), exchange.status
        self._metrics.requests.labels(method, route, str(status)).inc()
        if scope["type"] == "http" and STREAMING not in scope:
            self._metrics.request_seconds.labels(route).observe(exchange.seconds)
        if not scope["path"].startswith(_QUIET):
            attributes: Attributes = {"http.route": route, "http.response.status_code": status}
            self._tracing.annotate(attributes, name=method if route == NO_ROUTE else f"{method} {route}")
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                self._tracing.failed(str(status))


class _Exchange:
    def __init__(self, request_id: str, headers: Mapping[str, str], receive: Receive, send: Send) -> None:
        self._request_id = request_id
        self._headers = headers
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

    @property
    def status(self) -> int:
        return CLIENT_CLOSED_REQUEST if self._client_gone and not self._complete else self._status

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def _begin(self, message: Message) -> None:
        self._status = message["status"]
        headers = MutableHeaders(scope=message)
        headers["X-Request-Id"] = self._request_id
        for name, value in self._headers.items():
            headers.setdefault(name, value)

    def log(self, scope: Scope) -> None:
        """Without the query: it may hold a ticket."""
        level = logging.DEBUG if scope["path"].startswith(_QUIET) and self.status < 500 else logging.INFO
        access_log.log(level, "%s %s %d %.1f ms", scope["method"], _path(scope), self.status, self.seconds * 1000)


def _route(scope: Scope) -> str:
    """The template of its path, under one name for all versions of the API."""
    route = scope.get("route")
    if route is None:
        return NO_ROUTE
    return f"/api{route.path}" if _API.match(scope["path"]) else str(route.path)


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
        access_log.info("WS %s %d %d %.1f ms", _path(scope), self._status, self._closed, self.seconds * 1000)


def _method(scope: Scope) -> str:
    """A WebSocket is opened by a GET."""
    return str(scope.get("method", "GET"))


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
