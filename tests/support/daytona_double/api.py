"""Daytona's API: sandboxes, what becomes of them, and links to their ports."""

import json
from typing import TYPE_CHECKING

from aiohttp import web

from tests.support.daytona_double.box import Box
from tests.support.daytona_double.problems import refusal

if TYPE_CHECKING:
    from tests.support.daytona_double.double import DaytonaDouble

BASE = "/api"
PAGE = 100
SIGNED_SECONDS = 60
INTERVALS = {
    "autostop": "autoStopInterval",
    "autopause": "autoPauseInterval",
    "autoarchive": "autoArchiveInterval",
    "autodelete": "autoDeleteInterval",
}


class Api:
    def __init__(self, double: "DaytonaDouble") -> None:
        self._double = double

    def routes(self) -> list[web.AbstractRouteDef]:
        one = f"{BASE}/sandbox/{{id}}"
        port = f"{one}/ports/{{port}}"
        return [
            web.post(f"{BASE}/sandbox", self._create),
            web.get(f"{BASE}/sandbox", self._list),
            web.get(one, self._get),
            web.delete(one, self._delete),
            web.post(f"{one}/start", self._start),
            web.post(f"{one}/stop", self._stop),
            web.post(f"{one}/pause", self._pause),
            web.post(f"{one}/archive", self._archive),
            web.post(f"{one}/fork", self._fork),
            web.post(f"{one}/last-activity", self._touch),
            web.put(f"{one}/labels", self._label),
            web.post(f"{one}/network-settings", self._network),
            *(web.post(f"{one}/{name}/{{minutes}}", self._interval) for name in INTERVALS),
            web.get(f"{port}/preview-url", self._preview),
            web.get(f"{port}/signed-preview-url", self._sign),
            web.post(f"{port}/signed-preview-url/{{token}}/expire", self._expire),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if asked.get("name") in {box.name for box in self._double.boxes.values()}:
            raise refusal(409, f"Sandbox with name {asked['name']} already exists", "CONFLICT")
        return web.json_response((await self._double.create(asked)).dto())

    async def _list(self, request: web.Request) -> web.Response:
        wanted = json.loads(request.query.get("labels", "{}"))
        states = request.query.getall("states", [])
        found = [
            box.dto()
            for box in sorted(self._double.boxes.values(), key=lambda box: -box.created_at)
            if wanted.items() <= box.labels.items() and (not states or box.state in states)
        ]
        start, size = int(request.query.get("cursor", 0)), int(request.query.get("limit", PAGE))
        cursor = str(start + size) if start + size < len(found) else None
        return web.json_response({"items": found[start : start + size], "nextCursor": cursor})

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(self._box(request).dto())

    async def _delete(self, request: web.Request) -> web.Response:
        box = self._settled(request)
        await self._double.delete(box)
        return web.json_response(box.dto())

    async def _start(self, request: web.Request) -> web.Response:
        box = self._settled(request, "stopped", "archived", "paused")
        await self._double.start(box)
        return web.json_response(box.dto())

    async def _stop(self, request: web.Request) -> web.Response:
        box = self._settled(request, "started", "paused")
        await self._double.stop(box)
        return web.json_response(box.dto())

    async def _pause(self, request: web.Request) -> web.Response:
        box = self._settled(request, "started")
        await self._double.pause(box)
        return web.json_response(box.dto())

    async def _archive(self, request: web.Request) -> web.Response:
        box = self._settled(request, "stopped")
        await self._double.archive(box)
        return web.json_response(box.dto())

    async def _fork(self, request: web.Request) -> web.Response:
        box = self._settled(request, "started")
        return web.json_response((await self._double.fork(box, (await request.json()).get("name"))).dto())

    async def _touch(self, request: web.Request) -> web.Response:
        self._box(request).touch()
        return web.Response(status=201)

    async def _label(self, request: web.Request) -> web.Response:
        box = self._box(request)
        box.labels = (await request.json())["labels"]
        return web.json_response({"labels": box.labels})

    async def _network(self, request: web.Request) -> web.Response:
        box = self._box(request)
        box.asked |= await request.json()
        return web.json_response(box.dto())

    async def _interval(self, request: web.Request) -> web.Response:
        box = self._box(request)
        name = request.path.split("/")[-2]
        box.intervals[INTERVALS[name]] = int(request.match_info["minutes"])
        return web.json_response(box.dto())

    async def _preview(self, request: web.Request) -> web.Response:
        box, port = self._box(request), int(request.match_info["port"])
        url = await self._double.previews.standard(box, port)
        return web.json_response({"sandboxId": box.id, "url": url, "token": box.preview_token})

    async def _sign(self, request: web.Request) -> web.Response:
        box, port = self._box(request), int(request.match_info["port"])
        seconds = float(request.query.get("expiresInSeconds", SIGNED_SECONDS))
        token, url = await self._double.previews.signed(box, port, seconds)
        return web.json_response({"sandboxId": box.id, "port": port, "token": token, "url": url})

    async def _expire(self, request: web.Request) -> web.Response:
        self._box(request)
        self._double.previews.expire(request.match_info["token"])
        return web.Response(status=204)

    def _box(self, request: web.Request) -> Box:
        wanted = request.match_info["id"]
        for box in self._double.boxes.values():
            if wanted in (box.id, box.name):
                return box
        raise refusal(404, f"Sandbox with ID or name {wanted} not found", "NOT_FOUND")

    def _settled(self, request: web.Request, *states: str) -> Box:
        """The sandbox, if no change of it is under way and it is in one of `states` (none given: in any)."""
        box = self._box(request)
        if box.state.endswith("ing"):
            raise refusal(409, "Sandbox state change in progress", "CONFLICT")
        if states and box.state not in states:
            raise refusal(400, f"Sandbox is not {states[0]}", "BAD_REQUEST")
        return box
