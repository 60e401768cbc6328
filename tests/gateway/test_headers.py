"""The headers that every answer has, whatever it is."""

import asyncio
import time
from pathlib import Path

import pytest

from gateway import server
from shared.config import ApiSettings
from tests.gateway.support import Gateway, serving, settings_for, until

ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/metrics", 200),
        ("GET", "/health/live", 200),
        ("GET", "/docs", 200),
        ("GET", "/docs-assets/swagger-ui.css", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/api/agent", 200),
        ("GET", "/nothing", 404),
        ("PUT", "/api/agent/initiate", 405),
        ("GET", "/session?ticket=none", 401),
        ("GET", "/api/agent?limit=x", 400),
    ],
)
async def test_all_answers_have_them(gateway: Gateway, method: str, path: str, status: int) -> None:
    answer = await gateway.client.request(method, path)
    assert answer.status_code == status
    assert ALWAYS.items() <= answer.headers.items()
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "strict-transport-security" not in answer.headers


async def test_a_stream_a_refused_body_and_a_crash_have_them_too(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    async with gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
        assert ALWAYS.items() <= stream.headers.items()
    large = await gateway.client.post("/api/agent/initiate", json={"metadata": {"a": "x" * 2_000_000}})
    await gateway.redis.hset(f"thread:{{{thread_id}}}:metadata", "created_at", "nonsense")
    crash = await gateway.client.get(f"/api/agent/{thread_id}")
    assert (large.status_code, crash.status_code) == (413, 500)
    for answer in (large, crash):
        assert ALWAYS.items() <= answer.headers.items()


async def test_browsers_are_told_to_use_https_only_where_the_gateway_has_it(redis_url: str, tmp_path: Path) -> None:
    api = ApiSettings(public_url="https://agents.example.com", hsts_max_age=3600)
    async with serving(settings_for(redis_url, tmp_path, api=api)) as gateway:
        answer = await gateway.client.get("/health/live")
        assert answer.headers["strict-transport-security"] == "max-age=3600; includeSubDomains"


def test_a_gateway_without_https_may_not_be_set_to_say_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="https"):
        settings_for("redis://127.0.0.1", tmp_path, api=ApiSettings(hsts_max_age=3600))


async def test_a_head_without_an_end_is_refused_and_a_long_one_is_not(gateway: Gateway) -> None:
    long = await gateway.client.get("/health/live", headers={"X-Long": "x" * 30_000})
    assert long.status_code == 200
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"GET /health/live HTTP/1.1\r\nhost: x\r\nx-long: ")
    answer = asyncio.create_task(reader.read(100))
    sent = 0
    while not answer.done() and sent < 10_000_000:
        writer.write(b"x" * 10_000)
        sent += 10_000
        await asyncio.sleep(0)
    assert (await asyncio.wait_for(answer, 5)).startswith(b"HTTP/1.1 431 ")
    assert sent < 10_000_000
    writer.transport.abort()


@pytest.mark.parametrize("begun", [b"", b"GET /health/live HTTP/1.1\r\nhost: x\r\n"])
async def test_a_head_that_does_not_come_is_not_waited_for(
    gateway: Gateway, begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(begun)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.transport.abort()


async def test_a_connection_whose_request_has_come_is_kept_however_long_it_lasts(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 1)
    thread, began = await gateway.thread(), time.monotonic()
    async with gateway.stream(f"/api/agent/{thread}/stream") as stream:
        assert (await stream.frames(1))[0].event == "waiting"
        await until(lambda: time.monotonic() > began + 2.5)
        await gateway.execute(thread)
        assert (await stream.frames(1))[0].data["type"] == "run.queued"


async def test_many_requests_on_one_connection_are_no_long_head(gateway: Gateway) -> None:
    headers = {"X-Long": "x" * 20_000}
    answers = [await gateway.client.get("/health/live", headers=headers) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
