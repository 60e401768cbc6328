"""What is open ends soon after its credentials; what is said over it meanwhile is refused at once."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import jwt
import pytest
from pydantic import SecretStr

from gateway.revocations import Revocations
from gateway.stream.ws import CloseCode
from shared.config import AuthSettings, JwtSettings
from shared.db import keys
from shared.types import JSON
from tests.gateway.support import BOUND_SECONDS, Gateway, frames_of, serving, settings_for, until
from tests.gateway.websockets import websocket
from tests.support.databases import put_database

SECRET = "a-secret-of-at-least-thirty-two-bytes"
LIFE_SECONDS = 5  # a second less where its end is rounded down


@pytest.fixture
async def gateway(redis_url: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    put_database(tmp_path)
    own = JwtSettings(secret=SecretStr(SECRET), issuer="us", audience="trunkline", leeway_seconds=0)
    auth = AuthSettings(recheck_seconds=0.1)
    async with serving(settings_for(redis_url, tmp_path, auth=auth, jwt=own)) as gateway:
        yield gateway


def a_token(until: float) -> str:
    claims = {"iss": "us", "aud": "trunkline", "exp": until, "sub": "ann", "workspace": "default"}
    return jwt.encode(claims, SECRET, "HS256")


async def a_key(gateway: Gateway) -> JSON:
    answer = await gateway.client.post("/api/keys", json={"name": "k", "scopes": ["read", "run"]})
    return dict(answer.json())


async def revoke(gateway: Gateway, key: JSON) -> None:
    assert (await gateway.client.delete(f"/api/keys/{key['id']}")).status_code == 200


async def test_streams_of_a_revoked_key_end_with_an_error_and_others_go_on(gateway: Gateway) -> None:
    thread, key = await gateway.thread(), await a_key(gateway)
    path, mine = f"/api/agent/{thread}/stream", {"authorization": f"Bearer {key['key']}"}
    async with gateway.stream(path, mine) as stream, gateway.stream(path) as other:
        for each in (stream, other):
            assert (await each.frames(1))[0].event == "waiting"
        await revoke(gateway, key)
        async with asyncio.timeout(BOUND_SECONDS):
            [last] = frames_of(await stream.rest())
        assert (last.event, last.data["status"], last.data["code"]) == ("error", 401, "unauthorized")
        await gateway.execute(thread)
        assert (await other.frames(1))[0].data["type"] == "run.queued"


async def test_a_stream_that_was_opened_with_a_ticket_ends_with_its_key(gateway: Gateway) -> None:
    thread, key = await gateway.thread(), await a_key(gateway)
    mine = {"authorization": f"Bearer {key['key']}"}
    ticket = (await gateway.client.post("/api/stream-tickets", headers=mine)).json()["ticket"]
    async with gateway.stream(f"/api/agent/{thread}/stream?ticket={ticket}", {"authorization": ""}) as stream:
        await revoke(gateway, key)
        async with asyncio.timeout(BOUND_SECONDS):
            assert frames_of(await stream.rest())[-1].event == "error"


@pytest.mark.parametrize("path", ["/ws/agent/{thread}", "/ws/runs/{run}/logs", "/ws/agents/stream"])
async def test_sockets_of_a_revoked_key_are_closed(gateway: Gateway, path: str) -> None:
    thread, key = await gateway.thread(), await a_key(gateway)
    run = await gateway.execute(thread)
    named = path.format(thread=thread, run=run)
    async with websocket(gateway, named, {"x-api-key": key["key"]}) as client:
        await revoke(gateway, key)
        async with asyncio.timeout(BOUND_SECONDS):
            assert await client.close_code() == CloseCode.UNAUTHORIZED


async def test_frames_of_a_revoked_key_do_nothing_from_then_on(redis_url: str, tmp_path: Path) -> None:
    put_database(tmp_path)
    async with serving(settings_for(redis_url, tmp_path, auth=AuthSettings(recheck_seconds=60))) as gateway:
        thread, key = await gateway.thread(), await a_key(gateway)
        async with websocket(gateway, f"/ws/agent/{thread}", {"x-api-key": key["key"]}) as client:
            await client.until(type="waiting")
            await revoke(gateway, key)
            answer = await client.ask(type="execute", task="x", id=1)
            assert (answer["status"], answer["code"], answer["id"]) == (401, "unauthorized", 1)
        assert await gateway.store.run_ids(thread) == []


async def test_what_is_open_ends_with_the_credentials_that_it_was_opened_with(gateway: Gateway) -> None:
    thread, ends = await gateway.thread(), int(time.time()) + LIFE_SECONDS
    path, token = f"/api/agent/{thread}/stream", {"authorization": f"Bearer {a_token(ends)}"}
    ticket = (await gateway.client.post("/api/stream-tickets", headers=token)).json()
    assert ticket["expires_in"] <= LIFE_SECONDS, "a ticket is no longer than what it stands for"
    body = {"name": "k", "scopes": ["read"], "expires_at": datetime.fromtimestamp(ends, UTC).isoformat()}
    key = (await gateway.client.post("/api/keys", json=body)).json()["key"]
    async with (
        gateway.stream(path, token) as by_token,
        gateway.stream(f"{path}?ticket={ticket['ticket']}", {"authorization": ""}) as by_ticket,
        gateway.stream(path, {"authorization": f"Bearer {key}"}) as by_key,
        gateway.stream(path) as other,
        websocket(gateway, f"/ws/agent/{thread}", {"authorization": f"Bearer {a_token(ends)}"}) as client,
    ):
        for stream in (by_token, by_ticket, by_key):
            [last] = [frame for frame in frames_of(await stream.rest()) if frame.event == "error"]
            assert (last.data["status"], last.data["code"]) == (401, "unauthorized")
        assert time.time() >= ends
        async with asyncio.timeout(BOUND_SECONDS):
            assert await client.close_code() == CloseCode.UNAUTHORIZED
        await gateway.execute(thread)
        assert [frame.data["type"] for frame in await other.frames(2)] == ["waiting", "run.queued"]


async def test_frames_of_credentials_that_have_expired_do_nothing(redis_url: str, tmp_path: Path) -> None:
    put_database(tmp_path)
    own = JwtSettings(secret=SecretStr(SECRET), issuer="us", audience="trunkline", leeway_seconds=0)
    settings = settings_for(redis_url, tmp_path, auth=AuthSettings(recheck_seconds=60), jwt=own)
    async with serving(settings) as gateway:
        thread, ends = await gateway.thread(), int(time.time()) + LIFE_SECONDS
        headers = {"authorization": f"Bearer {a_token(ends)}"}
        async with websocket(gateway, f"/ws/agent/{thread}", headers) as client:
            await client.until(type="waiting")
            await until(lambda: time.time() >= ends)
            answer = await client.ask(type="execute", task="x", id=1)
            assert (answer["status"], answer["code"]) == (401, "unauthorized")
        assert await gateway.store.run_ids(thread) == []


async def test_a_revocation_that_redis_was_never_told_of_ends_what_is_open(gateway: Gateway) -> None:
    thread, key = await gateway.thread(), await a_key(gateway)
    headers = {"authorization": f"Bearer {key['key']}"}
    async with gateway.stream(f"/api/agent/{thread}/stream", headers) as stream:
        async with gateway.app.state.services.db.begin() as c:
            await keys.revoke(c, "default", key["id"], datetime.now(UTC))
        assert frames_of(await stream.rest())[-1].event == "error"


async def test_one_question_is_asked_for_all_that_is_open(gateway: Gateway) -> None:
    """Of each key once, in one round trip, however many streams it has."""
    thread, made = await gateway.thread(), [await a_key(gateway) for _ in range(3)]
    revocations: Revocations = gateway.app.state.services.revocations
    headers = [{"authorization": f"Bearer {key['key']}"} for key in made for _ in range(4)]
    streams = [gateway.stream(f"/api/agent/{thread}/stream", each) for each in headers]
    opened = [await stream.__aenter__() for stream in streams]
    assert revocations.asked_of() == {key["id"] for key in made}
    for stream in streams:
        await stream.__aexit__(None, None, None)
    assert len(opened) == 12
    await until(lambda: not revocations.asked_of())


async def test_a_redis_that_is_away_ends_nothing(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await a_key(gateway)
    revocations: Revocations = gateway.app.state.services.revocations
    async with websocket(gateway, f"/ws/agent/{await gateway.thread()}", {"x-api-key": key["key"]}) as client:
        await client.until(type="waiting")
        counters = gateway.app.state.services.auth.ring._counters
        monkeypatch.setattr("gateway.counters.PATIENCE_SECONDS", 0.05)

        async def nothing(_: str) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(counters, "get", nothing)
        await revocations.check()
        answer = await client.ask(type="cancel", id=1)
        assert answer["type"] == "answer"
