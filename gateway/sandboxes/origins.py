"""Pages that sandboxes serve: each port of each sandbox has an origin of its own, and none of them reaches the API.

The Host header says which it is. What is asked of such an origin never comes near the routes of the API, its cookies or
its headers; who may see it is said by a link's ticket, which becomes a cookie of that origin alone.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from urllib.parse import parse_qsl, urlencode

from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from gateway.sandboxes import http, sockets
from gateway.sandboxes.host import NothingListens
from gateway.sandboxes.place import Place, find
from gateway.sandboxes.refusal import Refusal
from gateway.sandboxes.tunnel import Tunnel, closing
from shared import links
from shared.config import Settings
from shared.errors import AppError

log = logging.getLogger("trunkline.gateway.access")

COOKIE = "trunkline_port"
MAX_HELD = 5
"""Cookies of that name that are looked at."""
LOOK_SECONDS = 5.0
"""Pause between two looks whether the link of what is open is still good: somebody may have ended it."""
ASK = "Ask the agent, or whoever gave you the link, for another one."


@dataclass(frozen=True, slots=True)
class Admission:
    """What lets a visitor in: for so many seconds, and how many they are when asked again."""

    seconds: int
    left: Callable[[], Awaitable[int]]

    async def end(self) -> None:
        """Returns when it is good no more; while Redis is away, when its time is over."""
        seconds: float = self.seconds
        while seconds > 0:
            pause = min(seconds, LOOK_SECONDS)
            await asyncio.sleep(pause)
            seconds -= pause
            with suppress(RedisError):
                seconds = await self.left()


class SandboxOrigins:
    """Answers what is meant for a sandbox, and passes all else on."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._settings = settings
        self._open: Counter[Place] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        place = None
        if scope["type"] in ("http", "websocket"):
            place = find(self._settings.api, Headers(scope=scope).get("host", ""))
        if place is None:
            await self.app(scope, receive, send)
            return
        try:
            await self._serve(place, scope, receive, send)
        except Refusal as refusal:
            await _answer(refusal.page(), scope, receive, send)

    async def _serve(self, place: Place, scope: Scope, receive: Receive, send: Send) -> None:
        redis: Redis = scope["app"].state.services.redis
        request = HTTPConnection(scope)
        try:
            entry = await self._entry(redis, place, request)
        except RedisError as error:
            raise Refusal(503, "The service is not ready. Try again soon.") from error
        if isinstance(entry, Response):
            await _answer(entry, scope, receive, send)
            return
        with self._counted(place):
            async with closing(await _dial(place, scope)) as tunnel:
                await self._relay(tunnel, scope, receive, send, entry)

    @contextmanager
    def _counted(self, place: Place) -> Iterator[None]:
        """From before it is dialled. Raises Refusal."""
        if self._open[place] >= self._settings.sandbox.link_connections:
            raise Refusal(503, f"{self._open[place]} connections to this port are open: close some, and try again.")
        self._open[place] += 1
        try:
            yield
        finally:
            self._open[place] -= 1
            if not self._open[place]:
                del self._open[place]

    async def _relay(self, tunnel: Tunnel, scope: Scope, receive: Receive, send: Send, admission: Admission) -> None:
        limits = self._settings.sandbox
        patience = http.Patience(limits.page_answer_seconds, limits.page_silence_seconds)
        if scope["type"] == "websocket":
            await sockets.relay(tunnel, WebSocket(scope, receive, send), patience, end=admission.end())
        else:
            await http.relay(tunnel, scope, receive, send, patience, end=admission.end())

    async def _entry(self, redis: Redis, place: Place, request: HTTPConnection) -> Response | Admission:
        """A response where a ticket is to become a cookie first. Raises Refusal."""
        ticket = request.query_params.get("ticket", "")
        if ticket and request.scope["type"] == "http":
            seconds = await links.seconds_left(redis, place.sandbox, place.port, ticket)
            if seconds:
                return self._with_cookie(request, ticket, seconds)
        held = _held(request)
        for value in held:
            left = partial(links.seconds_left, redis, place.sandbox, place.port, value)
            if seconds := await left():
                _refuse_foreign_page(request)
                return Admission(seconds, left)
        left = partial(links.public_seconds_left, redis, place.sandbox, place.port)
        if seconds := await left():
            return Admission(seconds, left)
        if ticket or held:
            raise Refusal(403, f"This link is not valid, or not any more. {ASK}")
        raise Refusal(401, f"This page needs a link with a ticket. {ASK}")

    def _with_cookie(self, request: HTTPConnection, ticket: str, seconds: int) -> Response:
        query = [
            (name, value) for name, value in parse_qsl(request.url.query, True) if (name, value) != ("ticket", ticket)
        ]
        path = "/" + request.scope["raw_path"].decode("latin-1").lstrip("/")  # `//host` would lead elsewhere
        answer = RedirectResponse(f"{path}?{urlencode(query)}" if query else path, 303)
        secure = links.wildcard(self._settings.api).startswith("https:")
        name = f"__Host-{COOKIE}" if secure else COOKIE
        answer.set_cookie(name, ticket, max_age=seconds, httponly=True, samesite="lax", secure=secure)
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["Referrer-Policy"] = "no-referrer"
        return answer


async def _dial(place: Place, scope: Scope) -> Tunnel:
    """Raises Refusal."""
    try:
        tunnel: Tunnel = await scope["app"].state.services.sandboxes.dial(place.sandbox, place.port)
    except NothingListens as nothing:
        raise Refusal(502, _nobody(place.port, nothing.ports)) from nothing
    except AppError as error:
        raise Refusal(503, error.detail) from error
    return tunnel


def _held(request: HTTPConnection) -> list[str]:
    """The tickets in its cookies: another sandbox's page can have set more of the same name."""
    pairs = [pair.strip().partition("=") for line in request.headers.getlist("cookie") for pair in line.split(";")]
    return [value for name, _, value in pairs if name in (COOKIE, f"__Host-{COOKIE}")][:MAX_HELD]


def _refuse_foreign_page(request: HTTPConnection) -> None:
    """The origins of other sandboxes are the same site to a browser, and it sends cookies along. Raises Refusal."""
    origin = request.headers.get("origin")
    foreign = origin is not None and origin.partition("://")[2].lower() != request.headers.get("host", "").lower()
    navigates = request.headers.get("sec-fetch-mode") == "navigate" and request.scope.get("method") in ("GET", "HEAD")
    foreign |= request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    if foreign and not navigates:
        raise Refusal(403, "Pages of another origin cannot reach this one.")


def _nobody(port: int, ports: Sequence[int]) -> str:
    others = f"It listens on {', '.join(map(str, ports))}." if ports else "Nothing listens on any other port either."
    return f"Nothing in the sandbox listens on port {port}. {others} Ask the agent to start the server, and try again."


async def _answer(answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
    log.info("%s %s %d", scope.get("method", scope["type"]), Headers(scope=scope).get("host"), answer.status_code)
    if scope["type"] == "http":
        await answer(scope, receive, send)
    elif "websocket.http.response" in scope.get("extensions", {}):
        await WebSocket(scope, receive, send).send_denial_response(answer)
    else:
        await send({"type": "websocket.close", "code": 1008})
