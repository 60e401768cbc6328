"""How often one key may ask: a limit for each class of routes, counted in Redis for all gateways together.

Requests are counted where their caller is known; what needs no key (health, docs) has no limit. The window slides: what
was asked in the window before counts by the part of it that still overlaps, in Redis' own time.

Limits guard the service and do nothing for the request, so a Redis that is away lets it pass; where it needs Redis it
will be answered 503 all the same.
"""

import asyncio
import math
import time
from dataclasses import dataclass
from enum import StrEnum

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.auth import Principal
from gateway.counters import Counters, WindowStorage, unless_away
from shared.config import RateLimitSettings
from shared.errors import AppError, ErrorCode

USAGE = "trunkline.usage"
"""A request's Usage in the ASGI scope, for the headers of its answer."""


class RouteClass(StrEnum):
    """Each has a limit of its own."""

    EXECUTE = "execute"
    WRITE = "write"
    SIGNAL = "signal"
    READ = "read"
    STREAM = "stream"


# By operation id, what its method does not tell: POSTs that are no plain writes, GETs that are no plain reads.
_OPERATIONS = {
    RouteClass.EXECUTE: ("execute", "chat", "createRun", "retryRun", "forkRun", "runTask", "testTool"),
    RouteClass.SIGNAL: (
        *("publishEvent", "completeHumanStep", "resolveStep"),
        *("sendMessage", "cancelThread", "cancelRun"),
    ),
    RouteClass.READ: ("createStreamTicket", "validateWorkflow"),
    RouteClass.STREAM: ("streamThread", "streamFlow", "streamFlowAtRoot"),
}
_CLASSES = {operation: each for each, operations in _OPERATIONS.items() for operation in operations}
_STREAM_IF_ACCEPTED = frozenset({"listEvents", "listLogs"})


def class_of(request: HTTPConnection) -> RouteClass:
    if request.scope["type"] == "websocket":
        return RouteClass.STREAM
    operation = request.scope["route"].operation_id
    if operation in _STREAM_IF_ACCEPTED and "text/event-stream" in request.headers.get("accept", ""):
        return RouteClass.STREAM
    if operation in _CLASSES:
        return _CLASSES[operation]
    return RouteClass.READ if request.scope["method"] in ("GET", "HEAD") else RouteClass.WRITE


@dataclass(frozen=True, slots=True)
class Usage:
    """What is left of a limit."""

    name: str
    quota: int
    window_seconds: int
    remaining: int
    reset_seconds: int

    @property
    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers-11 has them."""
        return {
            "RateLimit-Policy": f'"{self.name}";q={self.quota};w={self.window_seconds}',
            "RateLimit": f'"{self.name}";r={self.remaining};t={self.reset_seconds}',
        }


class RateLimits:
    """The limits of all keys."""

    def __init__(self, settings: RateLimitSettings, counters: Counters) -> None:
        self._enabled = settings.enabled
        self._counters = counters
        self._window = SlidingWindowCounterRateLimiter(WindowStorage(counters))
        self._items = {name: _item(name, settings) for name in RouteClass}

    async def count(self, caller: Principal, request: HTTPConnection) -> None:
        """Raises AppError RATE_LIMITED; a request that is refused has not been counted."""
        await self.count_as(class_of(request), caller, request.scope)

    async def count_as(self, route_class: RouteClass, caller: Principal, scope: Scope) -> None:
        """For what has no route of its own, a WebSocket's frame. Raises as `count`."""
        if not self._enabled:
            return
        found = await unless_away(self._counters, self._hit(self._items[route_class], caller))
        if found is None:
            return
        counted, usage = found
        scope[USAGE] = usage
        if not counted:
            raise AppError(
                ErrorCode.RATE_LIMITED,
                f"This key may send {usage.quota} requests of the class {usage.name} in {usage.window_seconds} s "
                f"(rate_limit in the configuration). Try again in {usage.reset_seconds} s.",
                retry_after=usage.reset_seconds,
            )

    async def _hit(self, item: RateLimitItem, caller: Principal) -> tuple[bool, Usage]:
        who = f"{caller.workspace}/{caller.key_id}"
        # In this order, and in one round trip.
        hit, look = self._window.hit(item, who), self._window.get_window_stats(item, who)
        counted, stats = await asyncio.gather(hit, look)
        return counted, Usage(
            name=item.namespace,
            quota=item.amount,
            window_seconds=item.get_expiry(),
            remaining=stats.remaining if counted else 0,
            reset_seconds=max(1, math.ceil(stats.reset_time - time.time())),
        )


class UsageHeaders:
    """Tells in each answer what is left of the limit that its request was counted for. Pure ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start" and USAGE in scope:
                MutableHeaders(scope=message).update(scope[USAGE].headers)
            await send(message)

        await self.app(scope, receive, send_on)


def _item(name: RouteClass, settings: RateLimitSettings) -> RateLimitItem:
    amount = {
        RouteClass.EXECUTE: settings.execute or settings.max_requests,
        RouteClass.WRITE: settings.write or settings.max_requests,
        RouteClass.SIGNAL: settings.signal or 10 * settings.max_requests,
        RouteClass.READ: settings.read or 100 * settings.max_requests,
        RouteClass.STREAM: settings.stream or 100 * settings.max_requests,
    }[name]
    return RateLimitItemPerSecond(amount, settings.window_seconds, namespace=name)
