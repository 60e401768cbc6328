"""How many connections to a port are let in, and for how long."""

import asyncio
from types import SimpleNamespace
from typing import Any

from redis.asyncio import Redis
from starlette.types import Message

from gateway.sandboxes.host import NothingListens
from gateway.sandboxes.origins import SandboxOrigins
from shared import links
from shared.config import SandboxSettings, Settings
from shared.ids import new_thread_id
from tests.gateway.support import until

LIMIT = 2
ASKED = 20


class SlowHost:
    """Takes its time, and then knows of no server."""

    def __init__(self) -> None:
        self.dialled = 0
        self.let_go = asyncio.Event()

    async def dial(self, sandbox: str, port: int) -> Any:
        self.dialled += 1
        await self.let_go.wait()
        raise NothingListens([])


async def test_those_that_are_still_being_dialled_count_as_connections(redis_client: Redis) -> None:
    thread_id, host = new_thread_id(), SlowHost()
    await links.issue(redis_client, thread_id, 80, seconds=60, public=True)
    origins = SandboxOrigins(_nowhere, Settings(sandbox=SandboxSettings(link_connections=LIMIT)))
    app = SimpleNamespace(state=SimpleNamespace(services=SimpleNamespace(redis=redis_client, sandboxes=host)))
    statuses: list[int] = []

    async def visit() -> None:
        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        headers = [(b"host", f"80-{thread_id}.localhost".encode())]
        scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "scheme": "http"}
        await origins({**scope, "app": app, "headers": headers}, _nothing, send)

    visits = [asyncio.create_task(visit()) for _ in range(ASKED)]
    await until(lambda: len(statuses) + host.dialled == ASKED)
    host.let_go.set()
    await asyncio.gather(*visits)
    assert host.dialled == LIMIT
    assert sorted(statuses) == [502] * LIMIT + [503] * (ASKED - LIMIT)
    assert not origins._open, "a place that nobody visits is forgotten"


async def _nowhere(*_: Any) -> None:
    raise AssertionError("it is meant for a sandbox")


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
