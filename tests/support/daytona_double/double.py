"""A double of the Daytona service: its API and the toolbox in each sandbox over HTTP, with commands that really run.

Point the SDK at it by `DaytonaConfig(api_key=double.key, api_url=double.api_url)`. What it does not serve answers 404:
pseudo-terminals, code_run, input for session commands, git, language servers, snapshots, volumes, events.
"""

import asyncio
import secrets
import time
import uuid
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from tests.support.cloud import Cloud, Handler
from tests.support.daytona_double.api import Api
from tests.support.daytona_double.box import BOX, Box
from tests.support.daytona_double.files import Files
from tests.support.daytona_double.previews import Previews
from tests.support.daytona_double.problems import NOT_STARTED, PROXY, file_refusal, gone_refusal, refusal
from tests.support.daytona_double.toolbox import Toolbox
from tests.support.machines.copy import pack, unpack
from tests.support.machines.machine import MachineError, MachineGone

LOOKS_A_MINUTE = 20
SETTLED = ("started", "stopped", "paused", "archived", "error")


class DaytonaDouble(Cloud):
    """`async with DaytonaDouble() as double:`."""

    home = "/home/daytona"
    user = "daytona"

    def __init__(self, minute: float = 60, lag: float = 0, packages: Path | None = None) -> None:
        """`minute`: how many seconds a minute of the intervals (autostop, autodelete ...) lasts.

        `lag`: how many seconds each change of state takes; 0: it is over when its call is answered, and no client has
        to poll for it.
        """
        super().__init__(packages)
        self._lag = lag
        self.key = f"dtn_{secrets.token_hex(32)}"
        self.minute = minute
        self.boxes: dict[str, Box] = {}
        self.previews = Previews()
        self._changes: set[asyncio.Task[None]] = set()

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"

    def alive(self) -> dict[str, dict[str, str]]:
        """The labels of each sandbox that is not deleted, by its id."""
        return {box.id: box.labels for box in self.boxes.values()}

    def routes(self) -> list[web.AbstractRouteDef]:
        return [route for part in (Api(self), Toolbox(), Files()) for route in part.routes()]

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._clock = asyncio.create_task(self._watch_the_clock())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._clock.cancel()
        await asyncio.gather(*self._changes)
        await self.previews.close()
        for box in self.boxes.values():
            await box.sessions.drop()
        await super().__aexit__(*error)

    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            raise refusal(401, "Invalid credentials", "UNAUTHORIZED")
        if request.path.startswith("/toolbox/"):
            request[BOX] = self._started(request.path.split("/")[2])
        try:
            return await handler(request)
        except MachineError as error:
            raise file_refusal(error) from error
        except MachineGone as gone:
            raise gone_refusal(gone) from gone

    def _started(self, sandbox_id: str) -> Box:
        if sandbox_id not in self.boxes:
            raise refusal(404, f"Sandbox with ID {sandbox_id} not found", "NOT_FOUND", PROXY)
        box = self.boxes[sandbox_id]
        if box.state != "started":
            raise refusal(400, NOT_STARTED, "BAD_REQUEST", PROXY)
        box.touch()
        return box

    # --- what may happen to a sandbox: each change is begun, and is over some time later

    async def create(self, asked: dict[str, Any], files: bytes | None = None) -> Box:
        box = Box(str(uuid.uuid4()), asked, f"{self.url}/toolbox")
        self.boxes[box.id] = box
        await self._change(box, "creating", self._create(box, files))
        return box

    async def start(self, box: Box) -> None:
        was = box.state
        box.preview_token = secrets.token_hex(12)
        doing = {"paused": "resuming", "archived": "restoring"}.get(was, "starting")
        await self._change(box, doing, self._start(box, "thaw" if was == "paused" else "clear"))

    async def stop(self, box: Box) -> None:
        await self._change(box, "stopping", self._stop(box))

    async def pause(self, box: Box) -> None:
        await self._change(box, "pausing", self._pause(box))

    async def archive(self, box: Box) -> None:
        await self._change(box, "archiving", self._archive(box))

    async def delete(self, box: Box) -> None:
        await self._change(box, "destroying", self._delete(box))

    async def fork(self, box: Box, name: str | None) -> Box:
        return await self.create({**box.asked, "labels": box.labels, "name": name}, await pack(box.running))

    async def _change(self, box: Box, doing: str, change: Coroutine[Any, Any, None]) -> None:
        box.become(doing)
        box.touch()
        task = asyncio.create_task(self._later(change))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        if not self._lag:
            await asyncio.wait([task])

    async def _later(self, change: Coroutine[Any, Any, None]) -> None:
        await asyncio.sleep(self._lag)
        await change

    async def _create(self, box: Box, files: bytes | None) -> None:
        box.machine = await self.machines.start(box.id)
        if files:
            await unpack(box.machine, files)
        box.become("started")

    async def _start(self, box: Box, how: str) -> None:
        await box.running.ask(how)
        box.become("started")

    async def _stop(self, box: Box) -> None:
        await box.running.ask("clear")
        await box.sessions.drop()
        if box.intervals["autoDeleteInterval"] == 0:
            await self._delete(box)
        else:
            box.become("stopped")

    async def _pause(self, box: Box) -> None:
        await box.running.ask("freeze")
        box.become("paused")

    async def _archive(self, box: Box) -> None:
        box.become("archived")

    async def _delete(self, box: Box) -> None:
        if box.machine:
            await self.machines.stop(box.machine)
        await box.sessions.drop()
        box.become("destroyed")
        del self.boxes[box.id]

    async def _watch_the_clock(self) -> None:
        while True:
            await asyncio.sleep(self.minute / LOOKS_A_MINUTE)
            for box in [box for box in self.boxes.values() if box.state in SETTLED]:
                await self._do_what_is_due(box)

    async def _do_what_is_due(self, box: Box) -> None:
        now = time.monotonic()
        idle, settled = (now - box.active_at) / self.minute, (now - box.changed_at) / self.minute
        minutes = box.intervals
        if box.state == "started" and 0 < minutes["autoStopInterval"] < idle:
            await self.stop(box)
        elif box.state == "started" and 0 < minutes["autoPauseInterval"] < idle:
            await self.pause(box)
        elif box.state == "stopped" and 0 < minutes["autoDeleteInterval"] < settled:
            await self.delete(box)
        elif box.state == "stopped" and 0 < minutes["autoArchiveInterval"] < settled:
            await self.archive(box)
