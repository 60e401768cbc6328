"""API keys over HTTP: made, used, limited, revoked; and what becomes of them while SQL or Redis is away."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from gateway.auth import remembered
from gateway.auth.keyring import KeyRing
from shared.config import AuthSettings, DatabaseSettings
from shared.db import keys
from shared.errors import AppError, ErrorCode
from shared.key_format import checked, digest, is_key, new_key
from tests.gateway.support import KEY, Gateway, serving, settings_for, until
from tests.gateway.tenants import client_of, new_project
from tests.gateway.tenants import new_key as made_key
from tests.gateway.test_agents import tell
from tests.support.databases import PostgresDatabases, put_database
from tests.support.postgres import Postgres

DEFINITIONS = "/api/agents/definitions"  # which SQL is not asked for


async def status(gateway: Gateway, key: str, path: str = "/api/agent", **headers: str) -> int:
    async with client_of(gateway, key) as client:
        return (await client.get(path, headers=headers)).status_code


async def create(gateway: Gateway, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    return await gateway.client.post("/api/keys", json={"name": "k", **body}, headers=headers or {})


async def test_a_key_is_shown_once_and_kept_as_its_hash(sql_gateway: Gateway) -> None:
    answer = await create(sql_gateway, scopes=["read"])
    made = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"/api/keys/{made['id']}")
    assert is_key(made["key"])
    assert made["key"].startswith(made["prefix"])
    shown = (await sql_gateway.client.get(f"/api/keys/{made['id']}")).json()
    listed = (await sql_gateway.client.get("/api/keys")).json()["items"]
    assert [shown] == listed
    assert "key" not in shown
    async with sql_gateway.app.state.services.db.connect() as c:
        [row] = (await c.execute(text("SELECT * FROM keys"))).mappings()
    assert made["key"] not in str(dict(row))
    assert row["digest"] == digest(made["key"]).hex()


async def test_a_key_may_do_what_its_scopes_say(sql_gateway: Gateway) -> None:
    reader = await made_key(sql_gateway, "default", scopes=["read"])
    async with client_of(sql_gateway, reader) as client:
        assert (await client.get("/api/agent")).status_code == 200
        refused = await client.post("/api/agent/initiate")
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert "`run`" in refused.json()["detail"]
    runner = await made_key(sql_gateway, "default", scopes=["run"])
    async with client_of(sql_gateway, runner) as client:
        assert (await client.post("/api/agent/initiate")).status_code == 200
        assert (await client.get("/api/agent")).status_code == 403
    admin = await made_key(sql_gateway, "default", scopes=["admin"])
    async with client_of(sql_gateway, admin) as client:
        assert (await client.post("/api/agent/initiate")).status_code == 200
        assert (await client.post("/api/workspaces", json={"slug": "x", "name": "x"})).status_code == 403


async def test_a_revoked_key_is_refused_at_once_on_every_gateway(
    sql_gateway: Gateway, redis_url: str, tmp_path: Path
) -> None:
    made = (await create(sql_gateway)).json()
    (tmp_path / "other").mkdir()
    database = DatabaseSettings(url=sql_gateway.app.state.services.settings.database.url)
    async with serving(settings_for(redis_url, tmp_path / "other", database=database)) as other:
        ticket = (await _ticket(other, made["key"])).json()["ticket"]
        thread = await sql_gateway.thread()
        async with other.stream(f"/api/agent/{thread}/stream?ticket={ticket}", {"authorization": ""}) as stream:
            assert stream.status == 200
        assert await status(other, made["key"]) == 200
        for _ in range(2):
            revoked = await sql_gateway.client.delete(f"/api/keys/{made['id']}")
            assert revoked.json()["revoked_at"]
        assert await status(other, made["key"]) == 401
        assert await status(sql_gateway, made["key"]) == 401
        async with other.stream(f"/api/agent/{thread}/stream?ticket={ticket}", {"authorization": ""}) as stream:
            assert stream.status == 401
    assert (await sql_gateway.client.get(f"/api/keys/{made['id']}")).json()["revoked_at"]


async def _ticket(gateway: Gateway, key: str) -> httpx.Response:
    async with client_of(gateway, key) as client:
        return await client.post("/api/stream-tickets")


async def test_without_redis_sql_alone_knows_that_a_key_is_revoked(
    sql_gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "FRESH_SECONDS", 0.0)
    made = (await create(sql_gateway)).json()
    assert await status(sql_gateway, made["key"]) == 200
    await sql_gateway.client.delete(f"/api/keys/{made['id']}")
    await sql_gateway.redis.flushall()
    assert await status(sql_gateway, made["key"]) == 401


async def test_a_key_ends_when_it_expires(sql_gateway: Gateway) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=4)
    made = (await create(sql_gateway, expires_at=soon.isoformat())).json()
    assert await status(sql_gateway, made["key"]) == 200

    async def refused() -> bool:
        return await status(sql_gateway, made["key"]) == 401

    await until(refused)
    assert datetime.now(UTC) >= soon


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""},
        {"name": "a\0b"},
        {"scopes": []},
        {"scopes": ["everything"]},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2030-01-01T00:00:00"},
        {"expires_at": "9999-12-31T23:59:59-14:00"},
        {"expires_at": True},
        {"workspace": "w"},
    ],
)
async def test_a_key_that_would_be_nonsense_is_not_made(gateway: Gateway, body: dict[str, Any]) -> None:
    assert (await create(gateway, **body)).status_code == 400
    assert (await gateway.client.get("/api/keys")).json()["items"] == []


async def test_the_same_request_again_makes_no_second_key_and_shows_none(sql_gateway: Gateway) -> None:
    again = {"Idempotency-Key": "once"}
    first, second = [(await create(sql_gateway, headers=again)).json() for _ in range(2)]
    assert first["key"]
    assert second == {**first, "key": None}
    assert await status(sql_gateway, first["key"]) == 200
    assert (await create(sql_gateway, headers=again, scopes=["admin"])).status_code == 409


async def test_keys_of_a_project_make_keys_of_that_project_only(sql_gateway: Gateway) -> None:
    one, two = [await new_project(sql_gateway, "default", name) for name in ("one", "two")]
    admin = await made_key(sql_gateway, "default", scopes=["admin"], project_id=one)
    async with client_of(sql_gateway, admin) as client:
        made = await client.post("/api/keys", json={"name": "another"})
        assert made.json()["project_id"] == one
        assert (await client.post("/api/keys", json={"name": "x", "project_id": two})).status_code == 404
        assert {key["project_id"] for key in (await client.get("/api/keys")).json()["items"]} == {one}
        assert (await client.post("/api/projects", json={"name": "three"})).status_code == 403
        assert [each["id"] for each in (await client.get("/api/projects")).json()["items"]] == [one]
        assert (await client.post("/api/events", json={"name": "go"})).status_code == 403
        thread = (await client.post("/api/agent/initiate")).json()["thread_id"]
        assert (await client.get(f"/api/agent/{thread}")).json()["project_id"] == one
    assert (await create(sql_gateway, project_id="nope")).status_code == 404


async def test_keys_that_are_asked_for_page_by_page_all_come(sql_gateway: Gateway) -> None:
    made = [(await create(sql_gateway, name=f"k{number}")).json()["id"] for number in range(5)]
    found: list[str] = []
    page: dict[str, Any] = {"next_cursor": ""}
    while page["next_cursor"] is not None:
        params = {"limit": 2, **({"cursor": page["next_cursor"]} if page["next_cursor"] else {})}
        page = (await sql_gateway.client.get("/api/keys", params=params)).json()
        found += [key["id"] for key in page["items"]]
    assert found == made[::-1]
    for cursor in ("x", "1-", "99999999999999999-a\0", "-1-a"):
        assert (await sql_gateway.client.get("/api/keys", params={"cursor": cursor})).status_code == 400


async def test_when_a_key_was_used_last_is_written_behind_the_requests_backs(sql_gateway: Gateway) -> None:
    made, began = (await create(sql_gateway)).json(), datetime.now(UTC)
    for _ in range(3):
        assert await status(sql_gateway, made["key"]) == 200
    path = f"/api/keys/{made['id']}"
    assert (await sql_gateway.client.get(path)).json()["last_used_at"] is None
    await sql_gateway.app.state.services.auth.ring.write_uses()
    used = (await sql_gateway.client.get(path)).json()["last_used_at"]
    assert began - timedelta(seconds=1) < datetime.fromisoformat(used) <= datetime.now(UTC)


async def test_a_mistyped_key_asks_no_database(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def by_digest(_: Any, name: str) -> None:
        asked.append(name)

    monkeypatch.setattr(keys, "by_digest", by_digest)
    key = new_key()
    swapped = key[:-1] + ("0" if key[-1] != "0" else "1")
    assert await status(gateway, swapped) == 401
    assert asked == []
    assert await status(gateway, key) == 401
    assert asked == [digest(key).hex()]


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.remove()


@asynccontextmanager
async def on_postgres(server: Postgres, redis_url: str, folder: Path) -> AsyncIterator[Gateway]:
    database = DatabaseSettings(url=await PostgresDatabases(server).new())  # type: ignore[arg-type]
    async with serving(settings_for(redis_url, folder, database=database)) as gateway:
        yield gateway


async def test_while_postgres_is_away_known_keys_work_and_others_are_asked_to_wait(
    own_postgres: Postgres, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(remembered, "RETRY_SECONDS", 0.0)
    async with on_postgres(own_postgres, redis_url, tmp_path) as gateway:
        await tell(gateway)
        known = (await create(gateway, scopes=["admin"])).json()
        assert await status(gateway, known["key"]) == 200
        own_postgres.stop()
        began = time.monotonic()
        assert await status(gateway, known["key"], DEFINITIONS) == 200
        assert await status(gateway, KEY, DEFINITIONS) == 200
        assert await status(gateway, new_key(), DEFINITIONS) == 503
        async with client_of(gateway, known["key"]) as client:
            thread = await client.post("/api/agent/initiate")
            assert thread.status_code == 200
            away = await client.get("/api/keys")
            assert (away.status_code, away.headers["retry-after"]) == (503, "2")
        assert time.monotonic() - began < 15
        own_postgres.start()
        assert await status(gateway, known["key"], DEFINITIONS) == 200
        assert (await gateway.client.delete(f"/api/keys/{known['id']}")).status_code == 200
        assert await status(gateway, known["key"], DEFINITIONS) == 401


async def test_an_address_that_guesses_is_told_to_stop_and_locks_nobody_out(redis_url: str, tmp_path: Path) -> None:
    put_database(tmp_path)
    async with serving(settings_for(redis_url, tmp_path, auth=AuthSettings(max_failures=5))) as gateway:
        known = (await create(gateway)).json()["key"]
        unseen = (await create(gateway)).json()["key"]
        assert await status(gateway, known) == 200
        answers = [await status(gateway, new_key()) for _ in range(8)]
        assert answers == [401] * 5 + [429] * 3
        assert [await status(gateway, key) for key in ("wrong", checked("tl_x"), known, KEY)] == [429, 429, 200, 200]
        # What nobody has seen is not looked up for this address, until it may try again.
        assert await status(gateway, unseen) == 429
        async with client_of(gateway, new_key()) as client:
            answer = await client.get("/api/agent")
        assert int(answer.headers["retry-after"]) > 0
        assert (await status(gateway, "")) == 401


async def test_uses_that_sql_did_not_take_are_written_with_the_next_ones(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = (await create(gateway)).json()
    assert await status(gateway, made["key"]) == 200
    ring: KeyRing = gateway.app.state.services.auth.ring

    async def away(*_: Any) -> None:
        raise AppError(ErrorCode.UNAVAILABLE, "away")

    with monkeypatch.context() as patch:
        patch.setattr(keys, "used", away)
        await ring.write_uses()
    await ring.write_uses()
    assert (await gateway.client.get(f"/api/keys/{made['id']}")).json()["last_used_at"]
