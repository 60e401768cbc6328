"""What stands before the operations of a sandbox host, whichever: the token, the host's name, refusals as JSON."""

import hmac
import logging
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workflow.sandbox import wire
from workflow.sandbox.base import (
    MAX_WRITE_BYTES,
    SandboxError,
    SandboxFenced,
    SandboxLost,
    SandboxRefused,
    SandboxUnavailable,
)

log = logging.getLogger("trunkline.sandbox")

MAX_BODY_BYTES = MAX_WRITE_BYTES + 4 * 1024**2  # the plan of the files and the note come on top
STATUSES: tuple[tuple[type[SandboxError], int], ...] = (
    (SandboxFenced, 409),
    (SandboxLost, 410),
    (SandboxUnavailable, 503),
    (SandboxError, 422),
)


def guarded(routes: Sequence[Route], incarnation: str, token: str) -> ASGIApp:
    """`incarnation`: see wire.HOST_HEADER. /health is open to everybody."""
    handlers = {SandboxError: _refuse, ValidationError: _refuse_malformed}
    app = Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]
    return Guard(Hangups(Signature(app, incarnation)), token)


def told(value: Any, status: int = 200) -> Response:
    return Response(wire.encode(value), status, media_type="application/json")


def no_operation(name: str) -> Response:
    return told({"error": "SandboxRefused", "detail": f"there is no operation {name}"}, 404)


async def body_of(request: Request) -> bytes:
    """Raises SandboxRefused once it is too long, without reading the rest."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise SandboxRefused(f"the request is longer than {MAX_BODY_BYTES} bytes")
    return bytes(body)


async def _refuse(_: Request, error: SandboxError) -> Response:
    status = next(status for kind, status in STATUSES if isinstance(error, kind))
    return told(wire.error_to_json(error), status)


async def _refuse_malformed(_: Request, error: ValidationError) -> Response:
    return told({"error": "SandboxRefused", "detail": f"malformed request: {error}"}, 400)


class Signature:
    """Tells with each answer which host gives it."""

    def __init__(self, app: ASGIApp, incarnation: str) -> None:
        self._app = app
        self._header = (wire.HOST_HEADER.encode(), incarnation.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], self._header]
            await send(message)

        await self._app(scope, receive, signed)


class Hangups:
    """A client that goes away in the middle of its request ends that, and is no error of ours."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            log.debug("the client of %s hung up", scope["path"])


class Guard:
    """Lets nobody in without the token, but to /health."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health" and not self._admits(scope):
            response = told({"error": "SandboxUnavailable", "detail": "wrong token for the sandbox host"}, 401)
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _admits(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self._expected)
