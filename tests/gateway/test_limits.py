import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr
from starlette.requests import HTTPConnection

from gateway.deps import BEGINS_WORK
from gateway.limits import RouteClass, class_of
from shared import keys
from shared.config import AuthSettings, RateLimitSettings, Settings, StreamSettings
from tests.gateway.support import KEY, Gateway, serving, settings_for, until
from tests.support.valkey import Valkey

LIMIT = 5
LEASE_SECONDS = 2
WINDOW_SECONDS = 60
OTHER_KEY = "tl_another-key-for-tests"
BEARER = {"Authorization": f"Bearer {OTHER_KEY}"}


FEW = RateLimitSettings(max_requests=LIMIT, window_seconds=WINDOW_SECONDS)


def few(redis_url: str, folder: Path, **rate_limit: int | bool) -> Settings:
    """Five requests of a class in a minute, unless said otherwise, for either of two keys."""
    return settings_for(
        redis_url,
        folder,
        rate_limit=FEW.model_copy(update=rate_limit),
        auth=AuthSettings(keys=[SecretStr(OTHER_KEY)]),
        stream=StreamSettings(max_per_key=3),
    )


@pytest.fixture
async def gateway(redis_url: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with serving(few(redis_url, tmp_path)) as gateway:
        yield gateway


async def execute(gateway: Gateway, thread_id: str, **headers: str) -> httpx.Response:
    return await gateway.client.post(f"/api/agent/{thread_id}/execute", json={"task": "x"}, headers=headers)


def left(answer: httpx.Response) -> tuple[str, int]:
    """Class and remaining requests, from the RateLimit header."""
    found = re.fullmatch(r'"(\w+)";r=(\d+);t=(\d+)', answer.headers["RateLimit"])
    assert found
    assert 1 <= int(found[3]) <= WINDOW_SECONDS
    return found[1], int(found[2])


async def test_a_key_that_asks_too_often_is_refused_and_told_when_to_come_back(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    for remaining in reversed(range(LIMIT)):
        answer = await execute(gateway, thread_id)
        assert answer.status_code == 200
        assert left(answer) == ("execute", remaining)
        assert answer.headers["RateLimit-Policy"] == f'"execute";q={LIMIT};w={WINDOW_SECONDS}'
    refused = await execute(gateway, thread_id)
    assert refused.status_code == 429
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.json()["code"] == "rate_limited"
    assert 1 <= int(refused.headers["Retry-After"]) <= WINDOW_SECONDS
    assert left(refused) == ("execute", 0)
    assert len((await gateway.client.get(f"/api/agent/{thread_id}/runs")).json()["items"]) == LIMIT


async def test_classes_and_keys_have_limits_of_their_own(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    for _ in range(LIMIT):
        await execute(gateway, thread_id)
    assert (await execute(gateway, thread_id)).status_code == 429
    assert (await execute(gateway, thread_id, **BEARER)).status_code == 200
    assert left(await gateway.client.post("/api/agent/initiate")) == ("write", LIMIT - 2)
    assert left(await gateway.client.get("/api/agent")) == ("read", 100 * LIMIT - 1)
    assert left(await gateway.client.post("/api/stream-tickets")) == ("read", 100 * LIMIT - 2)
    assert left(await gateway.client.post("/api/workflows/validate", json={})) == ("read", 100 * LIMIT - 3)


async def test_what_starts_a_run_and_what_reaches_one_are_classes_of_their_own(gateway: Gateway) -> None:
    for used, path in enumerate(
        ["runs", "runs/no-run/retry", "runs/no-run/fork", "tasks/no-task/runs", "tools/no-tool/test"], 1
    ):
        assert left(await gateway.client.post(f"/api/{path}", json={})) == ("execute", LIMIT - used), path
    for used, path in enumerate(
        [
            *("events", "steps/no-run.1/human-complete", "steps/no-run.1/resolve"),
            *("runs/no-run/cancel", "agent/no-thread/cancel", "agent/no-thread/message"),
        ],
        1,
    ):
        assert left(await gateway.client.post(f"/api/{path}", json={})) == ("signal", 10 * LIMIT - used), path


async def test_refused_requests_do_not_count_and_wrong_ones_do(gateway: Gateway) -> None:
    for _ in range(LIMIT + 3):
        await gateway.client.post("/api/agent/initiate", headers={"Authorization": "Bearer wrong-key"})
    assert left(await gateway.client.post("/api/agent/initiate", json={"wrong": 1})) == ("write", LIMIT - 1)
    missing = await gateway.client.get("/api/agent/nothing")
    assert (missing.status_code, left(missing)) == (404, ("read", 100 * LIMIT - 1))


async def test_what_needs_no_key_has_no_limit(gateway: Gateway) -> None:
    for path in ("/", "/health", "/health/live", "/health/ready", "/docs", "/openapi.json", "/docs-assets/favicon.png"):
        answers = [await gateway.client.get(path) for _ in range(10 * LIMIT + 1)]
        assert {answer.status_code for answer in answers} == {200}, path
        assert "RateLimit" not in answers[-1].headers


async def test_gateways_count_together(gateway: Gateway, redis_url: str, tmp_path: Path) -> None:
    async with serving(few(redis_url, tmp_path)) as second:
        first = [left(await gateway.client.post("/api/agent/initiate"))[1] for _ in range(2)]
        assert first == [LIMIT - 1, LIMIT - 2]
        assert left(await second.client.post("/api/agent/initiate")) == ("write", LIMIT - 3)


async def test_a_limit_is_exact_when_all_come_at_once(gateway: Gateway) -> None:
    answers = await asyncio.gather(*(gateway.client.post("/api/agent/initiate") for _ in range(4 * LIMIT)))
    assert sorted(answer.status_code for answer in answers) == [200] * LIMIT + [429] * 3 * LIMIT


async def test_who_comes_back_when_told_is_let_in(redis_url: str, tmp_path: Path) -> None:
    async with serving(few(redis_url, tmp_path, window_seconds=1)) as gateway:
        while (answer := await gateway.client.post("/api/agent/initiate")).status_code == 200:
            pass
        async with asyncio.timeout(10):
            while answer.status_code == 429:
                await asyncio.sleep(int(answer.headers["Retry-After"]))
                answer = await gateway.client.post("/api/agent/initiate")
        assert answer.status_code == 200


async def test_a_class_may_have_a_limit_of_its_own_and_all_may_be_off(redis_url: str, tmp_path: Path) -> None:
    async with serving(few(redis_url, tmp_path, write=2, read=3)) as gateway:
        assert left(await gateway.client.post("/api/agent/initiate")) == ("write", 1)
        assert left(await gateway.client.get("/api/agent")) == ("read", 2)
    async with serving(few(redis_url, tmp_path, enabled=False)) as gateway:
        answers = [await gateway.client.post("/api/agent/initiate") for _ in range(LIMIT + 1)]
        assert {answer.status_code for answer in answers} == {200}
        assert "RateLimit" not in answers[-1].headers


async def test_without_redis_requests_pass_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder := tmp_path / "valkey").mkdir()
    valkey = Valkey(folder)
    valkey.start()
    try:
        async with serving(few(valkey.url, tmp_path)) as gateway:
            valkey.kill()
            with caplog.at_level(logging.WARNING, "trunkline.gateway.limits"):
                # A ticket needs no Redis; a thread does.
                assert (await gateway.client.post("/api/stream-tickets")).status_code == 200
                assert (await gateway.client.post("/api/agent/initiate")).status_code == 503
            assert caplog.text.count("not counted") == 2
            valkey.start()
            async with asyncio.timeout(10):  # it is noticed within half a second
                while "RateLimit" not in (answer := await gateway.client.post("/api/agent/initiate")).headers:
                    pass
            # One whose answer came too late for its request was counted too.
            assert left(answer)[0] == "write"
            assert left(answer)[1] < LIMIT
    finally:
        valkey.kill()


async def test_browsers_pages_may_read_the_headers(redis_url: str, tmp_path: Path) -> None:
    settings = few(redis_url, tmp_path)
    origin = "https://app.example.com"
    settings = settings.model_copy(update={"api": settings.api.model_copy(update={"cors_origins": [origin]})})
    async with serving(settings) as gateway:
        answer = await gateway.client.get("/api/agent", headers={"Origin": origin})
        exposed = answer.headers["Access-Control-Expose-Headers"]
        assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(exposed.split(", "))


async def test_more_streams_than_a_key_may_hold_open_are_refused_until_one_is_closed(
    gateway: Gateway, redis_url: str, tmp_path: Path
) -> None:
    path = f"/api/agent/{await gateway.thread()}/stream"
    async with serving(few(redis_url, tmp_path)) as second, AsyncExitStack() as held:
        for each in (gateway, second, gateway):
            stream = await held.enter_async_context(each.stream(path))
            assert stream.status == 200
            assert stream.headers["ratelimit"].startswith('"stream";r=')
        refused = await second.client.get(path)
        assert refused.status_code == 429
        assert refused.json()["code"] == "rate_limited"
        assert int(refused.headers["Retry-After"]) >= 1
        async with gateway.stream(path, {"authorization": BEARER["Authorization"]}) as another_keys:
            assert another_keys.status == 200
    await until(lambda: no_stream_is_open(gateway))
    async with gateway.stream(path) as again:
        assert again.status == 200


async def open_streams(gateway: Gateway) -> list[str]:
    names = [name async for name in gateway.redis.scan_iter("streams:*")]
    return [str(member) for name in names for member in await gateway.redis.zrange(name, 0, -1)]


async def no_stream_is_open(gateway: Gateway) -> bool:
    return not await open_streams(gateway)


async def test_a_stream_that_never_was_is_not_counted(gateway: Gateway) -> None:
    for _ in range(10):
        assert (await gateway.client.get("/api/agent/nothing/stream")).status_code == 404
    await until(lambda: no_stream_is_open(gateway))


async def test_a_runs_events_count_as_a_stream_only_where_they_are_one(gateway: Gateway) -> None:
    run_id = await gateway.finished_run(await gateway.thread())
    page = await gateway.client.get(f"/api/runs/{run_id}/events")
    assert left(page)[0] == "read"
    whole = await gateway.client.get(f"/api/runs/{run_id}/events", headers={"Accept": "text/event-stream"})
    assert left(whole)[0] == "stream"


async def test_a_killed_gateways_streams_stop_counting_and_a_living_ones_go_on(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, redis_url: str, tmp_path: Path
) -> None:
    monkeypatch.setattr("gateway.open_streams.LEASE_SECONDS", float(LEASE_SECONDS))
    monkeypatch.setattr("gateway.open_streams.RENEW_SECONDS", 0.1)
    async with serving(few(redis_url, tmp_path)) as second:
        path = f"/api/agent/{await second.thread()}/stream"
        async with second.stream(path), second.stream(path):
            first = set(await open_streams(second))
            assert len(first) == 2
            name = keys.streams("default", hashlib.sha256(KEY.encode()).hexdigest()[:12])
            seconds, microseconds = await second.redis.time()
            ends = (seconds + LEASE_SECONDS) * 1000 + microseconds // 1000
            await second.redis.zadd(name, {"of a killed gateway": ends})
            assert (await second.client.get(path)).status_code == 429
            await asyncio.sleep(LEASE_SECONDS + 0.2)
            async with second.stream(path) as third:
                assert third.status == 200
                assert first < set(await open_streams(second))


async def test_whatever_begins_a_run_counts_as_execute(gateway: Gateway) -> None:
    others = {"initiateThread": RouteClass.WRITE, "forkThread": RouteClass.WRITE, "publishEvent": RouteClass.SIGNAL}
    found = {}
    for route in iter_route_contexts(gateway.app.routes):
        if set(BEGINS_WORK) <= set(getattr(route, "dependencies", None) or ()):
            scope = {"type": "http", "method": "POST", "headers": [], "route": route}
            found[route.operation_id] = class_of(HTTPConnection(scope))
    assert found.keys() > others.keys()
    assert {name: each for name, each in found.items() if each is not RouteClass.EXECUTE} == others
