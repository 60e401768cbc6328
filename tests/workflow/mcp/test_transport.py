"""What a server over HTTP sends is bounded, whatever it says of it."""

import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx2
import pytest
from aiohttp import web

from shared.net.guard import Guard
from tests.support.flood import Flood
from tests.support.ports import free_port
from workflow.mcp import transport
from workflow.mcp.transport import AnswerRefused, guarded_client

LIMIT = 1_000_000
FLOOD = 100_000_000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[tuple[httpx2.AsyncClient, str]]:
    app, port = web.Application(), free_port()
    app.router.add_post("/mcp", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with guarded_client(Guard(private_hosts=[f"127.0.0.1:{port}"]), {}) as client:
            yield client, f"http://127.0.0.1:{port}/mcp"
    finally:
        await runner.cleanup()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "ANSWER_BYTES", LIMIT)


async def test_an_answer_without_end_is_hung_up_on() -> None:
    flood = Flood(bytes(LIMIT), FLOOD)
    async with served(flood.serve) as (client, url):
        with pytest.raises(AnswerRefused, match="more than 1,000,000 bytes"):
            await client.post(url)
    assert flood.sent < FLOOD


async def test_an_answer_that_would_unfold_is_not_read() -> None:
    async def bomb(_: web.Request) -> web.StreamResponse:
        return web.Response(body=gzip.compress(bytes(FLOOD)), headers={"Content-Encoding": "gzip"})

    async with served(bomb) as (client, url):
        with pytest.raises(AnswerRefused, match="gzip"):
            await client.post(url)


async def test_events_may_go_on_for_ever() -> None:
    """Each of them is bounded by the SDK."""

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for _ in range(5):
            await response.write(b":" + bytes(LIMIT // 2) + b"\n\n")
        return response

    async with served(events) as (client, url):
        assert len((await client.post(url)).content) > 2 * LIMIT
