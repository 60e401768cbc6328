"""WebSockets of a gateway that is a process of its own, as it is deployed."""

import asyncio
import signal
from pathlib import Path

import aiohttp
import httpx
import pytest

from gateway.server import PING_SECONDS
from tests.gateway.support import KEY, until
from tests.gateway.test_process import gateway_process, ready
from tests.support.ports import free_port


async def test_a_gateway_that_stops_says_so_and_writes_no_ticket_into_its_log(redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with gateway_process(redis_url, tmp_path, port) as process:
        await until(lambda: ready(port), 60)
        async with httpx.AsyncClient(base_url=url, headers={"X-API-Key": KEY}) as client:
            thread_id = (await client.post("/api/agent/initiate")).json()["thread_id"]
            ticket = (await client.post("/api/stream-tickets")).json()["ticket"]
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{url}/ws/agent/{thread_id}/?ticket={ticket}") as socket:
                assert (await socket.receive_json(timeout=10))["type"] == "waiting"
                assert not socket.compress, "what it costs is memory for each connection"
                process.send_signal(signal.SIGTERM)
                assert (await socket.receive(10)).type is aiohttp.WSMsgType.CLOSE
                assert socket.close_code == aiohttp.WSCloseCode.SERVICE_RESTART
            assert await asyncio.to_thread(process.wait, 10) == 0
    log = (tmp_path / "log").read_text()
    assert f"WS /ws/agent/{thread_id}/ 101 1012" in log
    assert ticket not in log
    assert "Traceback" not in log


@pytest.mark.slow
async def test_a_client_that_answers_no_ping_is_dropped(redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with gateway_process(redis_url, tmp_path, port):
        await until(lambda: ready(port), 60)
        async with httpx.AsyncClient(base_url=url, headers={"X-API-Key": KEY}) as client:
            thread_id = (await client.post("/api/agent/initiate")).json()["thread_id"]
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{url}/ws/agent/{thread_id}", headers={"X-API-Key": KEY}, autoping=False) as socket,
            asyncio.timeout(2 * PING_SECONDS + 10),
        ):
            kinds = [message.type async for message in socket]
            assert aiohttp.WSMsgType.PING in kinds
            assert socket.close_code == aiohttp.WSCloseCode.INTERNAL_ERROR
