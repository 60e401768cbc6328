"""E2B's control plane: the REST API with the API key."""

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from tests.support.e2b_double.box import Box
from tests.support.e2b_double.problems import refusal

if TYPE_CHECKING:
    from tests.support.e2b_double.double import E2BDouble

PAGE = 100


class Control:
    def __init__(self, double: "E2BDouble") -> None:
        self._double = double
        self._answers: dict[str, Box] = {}
        """What was created, by Idempotency-Key."""

    def routes(self) -> list[web.AbstractRouteDef]:
        one = "/sandboxes/{id}"
        return [
            web.post("/v2/sandboxes", self._create),
            web.get("/v2/sandboxes", self._list),
            web.post("/v2/sandboxes/{id}/connect", self._connect),
            web.get(one, self._info),
            web.delete(one, self._kill),
            web.post(f"{one}/pause", self._pause),
            web.post(f"{one}/timeout", self._timeout),
            web.post(f"{one}/snapshots", self._snapshot),
            web.post(f"{one}/fork", self._fork),
            web.put(f"{one}/network", self._network),
            web.delete("/templates/{id}", self._delete_snapshot),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self._check_timeout(asked)
        key = request.headers.get("Idempotency-Key")
        box = self._answers.get(key) if key else None
        if box is None:
            box = await self._double.create(asked)
            if key:
                self._answers[key] = box
        return web.json_response(box.created(), status=201)

    async def _list(self, request: web.Request) -> web.Response:
        wanted = {unquote(name): unquote(value) for name, value in parse_qsl(request.query.get("metadata", ""))}
        states = request.query.get("state", "running,paused").split(",")
        found = [
            box.listed()
            for box in sorted(self._double.boxes.values(), key=lambda box: -box.started_at)
            if wanted.items() <= box.metadata.items() and box.state in states
        ]
        start, size = int(request.query.get("nextToken", 0)), int(request.query.get("limit", PAGE))
        headers = {"x-next-token": str(start + size)} if start + size < len(found) else {}
        return web.json_response(found[start : start + size], headers=headers)

    async def _connect(self, request: web.Request) -> web.Response:
        """Resumes a paused one; the end of a running one is only ever put off."""
        box, asked = self._box(request), await request.json()
        self._check_timeout(asked)
        seconds = asked.get("timeout", 15)
        if not box.running:
            await self._double.resume(box, seconds, memory=asked.get("memory") is not False)
            return web.json_response(box.created(), status=201)
        if time.time() + seconds > box.ends_at:
            self._double.live_for(box, seconds)
        return web.json_response(box.created())

    async def _info(self, request: web.Request) -> web.Response:
        return web.json_response(self._box(request).detail())

    async def _kill(self, request: web.Request) -> web.Response:
        await self._double.kill(self._box(request))
        return web.Response(status=204)

    async def _pause(self, request: web.Request) -> web.Response:
        box, asked = self._box(request), await _body(request)
        if not box.running:
            raise refusal(409, f"Sandbox {box.id} is already paused")
        await self._double.pause(box, memory=asked.get("memory") is not False)
        return web.Response(status=204)

    async def _timeout(self, request: web.Request) -> web.Response:
        box, asked = self._box(request), await request.json()
        self._check_timeout(asked)
        if not box.running:
            raise refusal(404, f"Sandbox {box.id} is not running")
        self._double.live_for(box, asked["timeout"])
        return web.Response(status=204)

    async def _snapshot(self, request: web.Request) -> web.Response:
        name = await self._double.snapshot(self._box(request))
        return web.json_response({"snapshotID": name, "names": []}, status=201)

    async def _fork(self, request: web.Request) -> web.Response:
        box, asked = self._box(request), await _body(request)
        name = await self._double.snapshot(box)
        like = {**box.asked, "templateID": name, "timeout": asked.get("timeout", 15)}
        forks = [await self._double.create(like) for _ in range(asked.get("count", 1))]
        return web.json_response([{"sandbox": fork.created()} for fork in forks], status=201)

    async def _network(self, request: web.Request) -> web.Response:
        self._box(request).asked["network"] = await request.json()
        return web.Response(status=204)

    async def _delete_snapshot(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        if self._double.snapshots.pop(name, None) is None:
            raise refusal(404, f"template '{name}' not found")
        return web.Response(status=204)

    def _box(self, request: web.Request) -> Box:
        sandbox_id = request.match_info["id"]
        if sandbox_id not in self._double.boxes:
            raise refusal(404, f"sandbox {sandbox_id} was not found")
        return self._double.boxes[sandbox_id]

    def _check_timeout(self, asked: dict[str, Any]) -> None:
        limit = self._double.max_timeout
        if not 0 <= asked.get("timeout", 15) <= limit:
            raise refusal(400, f"Timeout cannot be greater than {limit / 3600:g} hours")


async def _body(request: web.Request) -> dict[str, Any]:
    return dict(await request.json()) if request.can_read_body else {}
