"""A double of the E2B service: its control plane and its envd over HTTP, with commands that really run.

Point the SDK at it by `api_key=double.key, api_url=double.api_url, sandbox_url=double.api_url`. What it does not serve
answers 404 or `unimplemented`: pseudo-terminals, StreamInput, WatchDir, metrics, templates, volumes.
"""

import asyncio
import contextlib
import secrets
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.cloud import Cloud, Handler
from tests.support.e2b_double.box import BOX, Box
from tests.support.e2b_double.control import Control
from tests.support.e2b_double.files import Files
from tests.support.e2b_double.filesystem import Filesystem
from tests.support.e2b_double.problems import problem
from tests.support.e2b_double.process import Processes
from tests.support.e2b_double.traffic import address_of, not_found, serve_traffic
from tests.support.machines.copy import pack, unpack

AUTO_RESUME_SECONDS = 300


class E2BDouble(Cloud):
    """`async with E2BDouble() as double:`."""

    def __init__(self, max_timeout: int = 86_400, packages: Path | None = None) -> None:
        """`max_timeout`: the longest life that may be asked for, in seconds."""
        super().__init__(packages)
        self.key = f"e2b_{secrets.token_hex(20)}"
        self.max_timeout = max_timeout
        self.boxes: dict[str, Box] = {}
        self.snapshots: dict[str, bytes] = {}
        self._ends: dict[str, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def api_url(self) -> str:
        return self.url

    def alive(self) -> dict[str, dict[str, str]]:
        """The metadata of each sandbox that is running or paused, by its id."""
        return {box.id: box.metadata for box in self.boxes.values()}

    def routes(self) -> list[web.AbstractRouteDef]:
        parts = (Control(self), Processes(), Filesystem(), Files())
        return [route for part in parts for route in part.routes()]

    async def __aexit__(self, *error: object) -> None:
        for end in self._ends.values():
            end.cancel()
        await asyncio.gather(*self._ending)
        await super().__aexit__(*error)

    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Tells the control plane, envd and what a sandbox serves apart, and lets in who has the key for it."""
        if address := address_of(request):
            box = self.boxes.get(address.sandbox_id)
            return await serve_traffic(request, box if box and await self._awake(box) else None, address)
        if "E2b-Sandbox-Id" in request.headers:
            return await self._envd(request, handler)
        if request.headers.get("X-API-KEY") != self.key:
            return problem(401, "invalid API key")
        return await handler(request)

    async def _envd(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        sandbox_id = request.headers["E2b-Sandbox-Id"]
        box = self.boxes.get(sandbox_id)
        if box is None or not await self._awake(box):
            return not_found(sandbox_id)
        if request.path != "/health" and request.headers.get("X-Access-Token") != box.access_token:
            return problem(401, "unauthorized access, please provide a valid access token")
        request[BOX] = box
        return await handler(request)

    async def _awake(self, box: Box) -> bool:
        if not box.running and box.resumes_by_traffic:
            await self.resume(box, AUTO_RESUME_SECONDS)
        return box.running

    # --- what may happen to a sandbox

    async def create(self, asked: dict[str, Any]) -> Box:
        machine = await self.machines.start(f"i{secrets.token_hex(10)}")
        if snapshot := self.snapshots.get(asked["templateID"]):
            await unpack(machine, snapshot)
        box = Box(machine, asked, 0, f"localhost:{self.port}")
        self.boxes[box.id] = box
        self.live_for(box, asked.get("timeout") or 15)
        return box

    def live_for(self, box: Box, seconds: float) -> None:
        """Its absolute end is in `seconds`."""
        if end := self._ends.pop(box.id, None):
            end.cancel()
        box.ends_at = time.time() + seconds
        self._ends[box.id] = asyncio.get_running_loop().call_later(seconds, self._end, box)

    def _end(self, box: Box) -> None:
        task = asyncio.ensure_future(self.expire(box.id))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def expire(self, sandbox_id: str) -> None:
        """What its end does: pause where it was created so, else kill."""
        if box := self.boxes.get(sandbox_id):
            await (self.pause(box) if box.pauses_at_end else self.kill(box))

    async def pause(self, box: Box, *, memory: bool = True) -> None:
        self._ends.pop(box.id).cancel()
        box.running = False
        await box.machine.ask("freeze" if memory else "clear")

    async def resume(self, box: Box, seconds: float, *, memory: bool = True) -> None:
        await box.machine.ask("thaw" if memory else "clear")
        box.running = True
        self.live_for(box, seconds)

    async def kill(self, box: Box) -> None:
        with contextlib.suppress(KeyError):
            self._ends.pop(box.id).cancel()
        if self.boxes.pop(box.id, None):
            await self.machines.stop(box.machine)

    async def snapshot(self, box: Box) -> str:
        name = f"snap-{secrets.token_hex(8)}"
        self.snapshots[name] = await pack(box.machine)
        return name
