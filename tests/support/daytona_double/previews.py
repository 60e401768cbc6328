"""Links to ports inside: each has a server of its own here, as the service gives each a host name of its own."""

import secrets
import time
from collections.abc import Callable

from aiohttp import web

from tests.support.daytona_double.box import Box
from tests.support.daytona_double.problems import NOT_STARTED, PROXY, problem
from tests.support.preview import is_open, proxy

TOKEN_HEADER = "X-Daytona-Preview-Token"
TOKEN_QUERY = "DAYTONA_SANDBOX_AUTH_KEY"
CLOSE_SECONDS = 0.1

Admits = Callable[[web.Request], bool]


class Previews:
    def __init__(self) -> None:
        self._runners: list[web.AppRunner] = []
        self._standard: dict[tuple[str, int], str] = {}
        self._ends: dict[str, float] = {}
        """When each signed link ends, by its token; by the monotonic clock."""

    async def standard(self, box: Box, port: int) -> str:
        """Open to everybody where the sandbox is public, else to those who show its token."""

        def admits(request: web.Request) -> bool:
            shown = request.headers.get(TOKEN_HEADER) or request.query.get(TOKEN_QUERY)
            return bool(box.asked.get("public")) or shown == box.preview_token

        if (box.id, port) not in self._standard:
            self._standard[box.id, port] = await self._open(box, port, admits)
        return self._standard[box.id, port]

    async def signed(self, box: Box, port: int, seconds: float) -> tuple[str, str]:
        """(token, URL) of a link that needs nothing else, for so long."""
        token = secrets.token_hex(12)
        self._ends[token] = time.monotonic() + seconds
        return token, await self._open(box, port, lambda _: time.monotonic() < self._ends[token])

    def expire(self, token: str) -> None:
        self._ends[token] = 0

    async def close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()

    async def _open(self, box: Box, port: int, admits: Admits) -> str:
        async def serve(request: web.Request) -> web.StreamResponse:
            if not admits(request):
                return problem(401, "unauthorized: token is invalid", "UNAUTHORIZED", PROXY)
            if box.state != "started":
                return problem(400, NOT_STARTED, "BAD_REQUEST", PROXY)
            if not await is_open(box.running, port):
                return problem(502, f"bad gateway: nothing listens on port {port}", "BAD_GATEWAY", PROXY)
            return await proxy(request, box.running, port, request.path_qs)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_SECONDS)
        self._runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"
