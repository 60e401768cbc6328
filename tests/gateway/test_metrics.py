"""What the gateway's metrics say, to whom, and that they stay few."""

import asyncio
from pathlib import Path

import aiohttp
import httpx
import pytest
from pydantic import SecretStr

from shared.config import MetricsSettings
from shared.queue import QUEUE
from tests.gateway.support import KEY, Gateway, delta, serving, settings_for, until
from tests.gateway.test_process import gateway_process, ready
from tests.support.metrics import label_values, value
from tests.support.ports import free_port

EXECUTE = {"method": "POST", "route": "/api/agent/{thread_id}/execute"}


async def metrics(gateway: Gateway) -> str:
    answer = await gateway.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return answer.text


async def test_requests_are_counted_by_route_and_never_by_what_a_caller_can_make_up(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id)
    await gateway.client.get(f"/api/v1/runs/{run_id}")
    for number in range(50):
        await gateway.client.get(f"/made-up/{number}")
        await gateway.client.get(f"/api/runs/made-up-{number}")
    await gateway.client.request("PROPFIND", "/api/agent")
    text = await metrics(gateway)
    assert value(text, "trunkline_http_requests_total", **EXECUTE, status="200") == 1
    assert value(text, "trunkline_http_request_duration_seconds_count", route=EXECUTE["route"]) == 1
    run = {"method": "GET", "route": "/api/runs/{run_id}"}
    assert value(text, "trunkline_http_requests_total", **run, status="200") == 1, "one name for both versions"
    assert value(text, "trunkline_http_requests_total", **run, status="404") == 50
    assert value(text, "trunkline_http_requests_total", method="GET", route="none", status="404") == 50
    assert label_values(text, "method") == {"GET", "POST", "other"}
    assert "made-up" not in text
    assert thread_id not in text


async def test_a_websocket_that_is_nowhere_is_no_fault_of_the_gateway(gateway: Gateway) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"http://127.0.0.1:{gateway.port}/ws/made-up")
    where = {"method": "GET", "route": "none"}
    assert refused.value.status == 404
    assert value(await metrics(gateway), "trunkline_http_requests_total", **where, status="404") == 1


async def test_streams_are_counted_while_they_are_open_and_their_lag_is_measured(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id)
    attempt = await gateway.attempt(run_id)
    async with gateway.stream(f"/api/agent/{thread_id}/stream") as one, gateway.stream(f"/api/runs/{run_id}/events"):
        await one.frames(2)
        await attempt.emit([delta("x")])
        await one.frames(1)
        text = await metrics(gateway)
        assert value(text, "trunkline_stream_subscribers") == 1, "the other one is a page of events"
        assert value(text, "trunkline_stream_lag_seconds_count") >= 1
        assert value(text, "trunkline_stream_lag_seconds_sum") < 5
        assert value(text, "trunkline_stream_pages_total") >= 1, "it came after the run's first events"

    async def closed() -> bool:
        return value(await metrics(gateway), "trunkline_stream_subscribers") == 0

    await until(closed)


async def test_it_tells_what_waits_and_what_is_there(gateway: Gateway) -> None:
    await gateway.redis.rpush(QUEUE, "one", "two")
    text = await metrics(gateway)
    assert value(text, "trunkline_queue_depth", priority="normal") == 2
    assert value(text, "trunkline_queue_depth", priority="high") == 0
    assert value(text, "trunkline_workers_alive") == 0
    assert value(text, "trunkline_redis_up") == 1
    assert value(text, "trunkline_database_up") == 1


async def test_a_page_of_another_name_may_not_read_them_though_it_asks_from_this_machine(gateway: Gateway) -> None:
    answer = await gateway.client.get("/metrics", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_behind_a_proxy_that_names_its_client_there_are_none(gateway: Gateway) -> None:
    answer = await gateway.client.get("/metrics", headers={"X-Forwarded-For": "203.0.113.7"})
    assert answer.status_code == 404


async def test_with_a_token_they_are_for_who_has_it_and_a_key_is_not_it(redis_url: str, tmp_path: Path) -> None:
    settings = settings_for(redis_url, tmp_path, metrics=MetricsSettings(token=SecretStr("for-prometheus")))
    async with serving(settings) as gateway:
        assert (await gateway.client.get("/metrics")).status_code == 401
        for given, status in (("for-prometheus", 200), ("for-prometheus2", 401), (KEY, 401), ("x", 401)):
            headers = {"Authorization": f"Bearer {given}", "Host": "gateway.example"}
            assert (await gateway.client.get("/metrics", headers=headers)).status_code == status


async def test_any_of_the_processes_of_a_port_answers_for_all_of_them(redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    with gateway_process(redis_url, tmp_path, port, workers=2) as process:
        await until(lambda: ready(port), 60)

        async def ask(path: str) -> str:
            async with httpx.AsyncClient() as client:  # a connection of its own, to either process
                return (await client.get(f"http://127.0.0.1:{port}{path}")).text

        await asyncio.gather(*(ask("/api/nothing") for _ in range(40)))
        route = {"method": "GET", "route": "none", "status": "404"}
        texts = [await ask("/metrics") for _ in range(8)]
        assert {value(text, "trunkline_http_requests_total", **route) for text in texts} == {40}
        assert value(texts[-1], "trunkline_workers_alive") == 0
        assert value(texts[-1], "trunkline_stream_subscribers") == 0
        process.terminate()  # killed, it would leave its processes behind
        await asyncio.to_thread(process.wait, 10)
