"""What the doubles of sandbox services have in common: a server, the record of its calls, faults on demand."""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Self

from aiohttp import web

from tests.support.machines.machine import Machines

MAX_BODY_BYTES = 64 * 1024**2
CLOSE_SECONDS = 0.1  # for answers still under way when a double ends

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(Exception):
    """The service's answer is a refusal."""

    def __init__(self, response: web.Response) -> None:
        super().__init__()
        self.response = response


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    path: str
    headers: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(slots=True)
class Fault:
    """Spoils the next `times` calls whose "METHOD /path" matches the regular expression `call` from its start.

    `status` None: the connection is cut without an answer. `done`: the service does what was asked, and only its answer
    is lost. `seconds` is waited before.
    """

    call: str
    status: int | None = 500
    body: str = "<html><body>upstream connect error</body></html>"
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/html"})
    times: int = 1
    done: bool = False
    seconds: float = 0


def rate_limit(call: str = "", times: int = 1, retry_after: int = 1) -> Fault:
    body = '{"code": 429, "message": "Too many requests", "statusCode": 429}'
    return Fault(call, 429, body, {"Content-Type": "application/json", "Retry-After": str(retry_after)}, times)


def slow(call: str, seconds: float, times: int = 1) -> Fault:
    """The answer is right, but late: it is status 200 that says so."""
    return Fault(call, HTTPStatus.OK, seconds=seconds, times=times)


class Cloud(ABC):
    """A service over real HTTP on a free loopback port, while it is entered.

    `calls` are those made so far; a test appends to `faults`.
    """

    home = "/home/user"
    user = "user"

    def __init__(self, packages: Path | None = None) -> None:
        """`packages`: what code templates depend on, as a service's image may have it at /opt/templates."""
        self.machines = Machines(self.home, self.user, packages)
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.port = 0

    def called(self, pattern: str) -> int:
        """How many calls match "METHOD /path" from its start."""
        return sum(bool(re.match(pattern, str(call))) for call in self.calls)

    @abstractmethod
    def routes(self) -> list[web.AbstractRouteDef]: ...

    async def __aenter__(self) -> Self:
        await self.machines.__aenter__()

        @web.middleware
        async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._note(request, handler)

        app = web.Application(middlewares=[note], client_max_size=MAX_BODY_BYTES)
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_SECONDS)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()
        await self.machines.__aexit__(*error)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        call = Call(request.method, request.path, request.headers)
        self.calls.append(call)
        fault = self._fault_of(call)
        if fault is None:
            return await self._answer(request, handler)
        await asyncio.sleep(fault.seconds)
        if fault.status == HTTPStatus.OK:
            return await self._answer(request, handler)
        if fault.done:
            await self._answer(request, handler)
        if fault.status is None:
            assert request.transport
            request.transport.abort()
            raise ConnectionResetError
        return web.Response(status=fault.status, text=fault.body, headers=fault.headers)

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await self.answer(request, handler)
        except Refused as refused:
            return refused.response

    def _fault_of(self, call: Call) -> Fault | None:
        for fault in self.faults:
            if re.match(fault.call, str(call)):
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                return fault
        return None

    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The service's own way from a request to its answer. Raises Refused."""
        return await handler(request)
