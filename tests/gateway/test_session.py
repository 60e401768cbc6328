"""Signing in with a key: the cookie may what the key may, for as long as the key counts or until it is signed out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from pydantic import SecretStr

from shared import tickets
from shared.config import AuthSettings, JwtSettings
from shared.types import JSON
from tests.gateway.support import BOUND_SECONDS, KEY, Gateway, frames_of, serving, settings_for
from tests.gateway.tenants import new_key, new_project, new_workspace
from tests.support.databases import put_database

SECRET = "a-secret-of-at-least-thirty-two-bytes"
MOST_FAILURES = 5


@pytest.fixture
async def gateway(redis_url: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    put_database(tmp_path)
    auth = AuthSettings(recheck_seconds=0.1, max_failures=MOST_FAILURES)
    own = JwtSettings(secret=SecretStr(SECRET), issuer="us", audience="trunkline")
    async with serving(settings_for(redis_url, tmp_path, auth=auth, jwt=own)) as gateway:
        yield gateway


@asynccontextmanager
async def browser(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """On one of the gateway's own pages."""
    own = f"http://127.0.0.1:{gateway.port}"
    async with httpx.AsyncClient(base_url=own, timeout=BOUND_SECONDS, headers={"origin": own}) as client:
        yield client


async def sign_in(client: httpx.AsyncClient, key: str, **request: Any) -> JSON:
    answer = await client.post("/api/session", json={"key": key}, **request)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def a_key(gateway: Gateway, **body: Any) -> JSON:
    return dict((await gateway.client.post("/api/keys", json={"name": "k", **body})).json())


@pytest.mark.parametrize("how", [{"json": {"key": KEY}}, {"headers": {"authorization": f"Bearer {KEY}"}}])
async def test_a_key_signs_in_for_a_cookie_that_no_script_reads(gateway: Gateway, how: dict[str, Any]) -> None:
    async with browser(gateway) as client:
        answer = await client.post("/api/session", **how)
        assert (answer.status_code, answer.json()["workspace_id"]) == (200, "default")
        cookie = answer.headers["set-cookie"]
        assert all(part in cookie for part in ("HttpOnly", "SameSite=lax", "Max-Age=1209600"))
        assert KEY not in cookie + answer.text
        assert (await client.get("/api/workspaces")).status_code == 200
        assert (await client.post("/api/workspaces", json={"slug": "acme", "name": "Acme"})).status_code == 201


async def test_a_session_may_what_its_key_may(gateway: Gateway) -> None:
    workspace = await new_workspace(gateway, "acme")
    project = await new_project(gateway, workspace, "one")
    key = await new_key(gateway, workspace, scopes=["read"], project_id=project)
    thread = await gateway.thread()
    async with browser(gateway) as client:
        told = await sign_in(client, key)
        assert (told["workspace_id"], told["project_id"], told["scopes"]) == (workspace, project, ["read"])
        assert (await client.get("/api/agent")).json()["items"] == []
        assert (await client.post("/api/agent/initiate")).status_code == 403
        assert (await client.get(f"/api/agent/{thread}")).status_code == 404
        assert (await client.get("/api/agent", headers={"X-Workspace-Id": "default"})).status_code == 404
        assert (await client.get("/api/audit")).status_code == 403


async def test_an_operators_session_is_for_the_workspace_that_was_selected(gateway: Gateway) -> None:
    workspace = await new_workspace(gateway, "acme")
    async with browser(gateway) as client:
        told = await sign_in(client, KEY, headers={"X-Workspace-Slug": "acme"})
        assert told["workspace_id"] == workspace
        made = await client.post("/api/projects", json={"name": "p"})
        assert made.status_code == 201
        listed = await gateway.client.get("/api/projects", headers={"X-Workspace-Id": workspace})
        assert [item["id"] for item in listed.json()["items"]] == [made.json()["id"]]


async def test_a_revoked_key_ends_its_session_and_what_is_open_with_it(gateway: Gateway) -> None:
    key, thread = await a_key(gateway), await gateway.thread()
    async with browser(gateway) as client:
        await sign_in(client, key["key"])
        cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        async with gateway.stream(f"/api/agent/{thread}/stream", {"authorization": "", "cookie": cookie}) as stream:
            assert (await stream.frames(1))[0].event == "waiting"
            await gateway.client.delete(f"/api/keys/{key['id']}")
            assert (await client.get("/api/agent")).status_code == 401
            async with asyncio.timeout(BOUND_SECONDS):
                assert frames_of(await stream.rest())[-1].data["status"] == 401
        await gateway.redis.delete(*[name async for name in gateway.redis.scan_iter("revoked:*")])
    async with serving(gateway.app.state.services.settings) as other, browser(other) as client:
        # Long after, when only SQL knows of it.
        assert (await client.get("/api/agent", headers={"cookie": cookie})).status_code == 401


@pytest.mark.parametrize("by_link", [False, True])
async def test_signing_out_ends_the_session_at_once_and_no_other(gateway: Gateway, by_link: bool) -> None:
    thread = await gateway.thread()
    async with browser(gateway) as client, browser(gateway) as other:
        for each in (client, other):
            if by_link:
                ticket = await tickets.issue(gateway.redis, "default", seconds=60)
                assert (await each.get("/session", params={"ticket": ticket})).status_code == 303
            else:
                await sign_in(each, KEY)
        [(name, value)] = client.cookies.items()
        ticket = (await client.post("/api/stream-tickets")).json()["ticket"]
        async with gateway.stream(f"/api/agent/{thread}/stream?ticket={ticket}", {"authorization": ""}) as stream:
            assert (await stream.frames(1))[0].event == "waiting"
            answer = await client.delete("/api/session")
            assert (answer.status_code, len(client.cookies)) == (204, 0)
            async with asyncio.timeout(BOUND_SECONDS):
                assert frames_of(await stream.rest())[-1].data["status"] == 401
        assert (await client.get("/api/agent", headers={"cookie": f"{name}={value}"})).status_code == 401
        assert (await other.get("/api/agent")).status_code == 200
        assert (await client.delete("/api/session")).status_code == 204  # whoever is not signed in is signed out


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
async def test_anothers_page_signs_nobody_in_or_out(gateway: Gateway, origin: str) -> None:
    foreign = {"origin": origin}
    async with browser(gateway) as client:
        answer = await client.post("/api/session", json={"key": KEY}, headers=foreign)
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
        await sign_in(client, KEY)
        assert (await client.delete("/api/session", headers=foreign)).status_code == 403
        assert (await client.post("/api/agent/initiate", headers=foreign)).status_code == 403
        assert (await client.get("/api/agent")).status_code == 200


async def test_guesses_count_as_elsewhere(gateway: Gateway) -> None:
    async with browser(gateway) as client:
        statuses = [(await client.post("/api/session", json={"key": f"guess-{n}"})).status_code for n in range(7)]
        assert statuses == [401] * MOST_FAILURES + [429] * 2
        await sign_in(client, KEY)


async def test_neither_a_cookie_nor_a_token_opens_a_session(gateway: Gateway) -> None:
    claims = {"iss": "us", "aud": "trunkline", "exp": 4_000_000_000, "sub": "ann", "workspace": "default"}
    async with browser(gateway) as client:
        assert (await client.post("/api/session")).status_code == 401
        token = jwt.encode(claims, SECRET, "HS256")
        assert (await client.post("/api/session", json={"key": token})).status_code == 400
        await sign_in(client, KEY)
        assert (await client.post("/api/session")).status_code == 401


async def test_the_audit_log_has_who_signed_in_and_never_the_key(gateway: Gateway) -> None:
    key = await a_key(gateway, scopes=["read"])
    async with browser(gateway) as client:
        await sign_in(client, key["key"])
    await gateway.app.state.services.audit.write()
    answer = await gateway.client.get("/api/audit", params={"action": "signIn"})
    [entry] = answer.json()["items"]
    assert (entry["actor"], entry["outcome"]) == (key["id"], "done")
    assert key["key"] not in answer.text


async def test_where_nobody_is_asked_for_a_key_anybody_here_signs_in(redis_url: str, tmp_path: Path) -> None:
    settings = settings_for(redis_url, tmp_path, auth=AuthSettings(enabled=False))
    async with serving(settings) as gateway, browser(gateway) as client:
        assert (await client.post("/api/session")).status_code == 200
        assert (await client.delete("/api/session")).status_code == 204
        assert (await client.post("/api/session", headers={"origin": "https://evil.example"})).status_code == 403
