"""Who gets in: keys, the printed link's cookie, stream tickets; and what is not yours does not exist."""

import time
from pathlib import Path

import httpx
import pytest

from gateway.app import create_app
from gateway.signing import Signer
from shared import tickets
from shared.config import ApiSettings, AuthSettings, Settings
from shared.errors import AppError, ErrorCode
from shared.ids import new_run_id, new_thread_id
from shared.threads.types import NewRun, NewThread
from tests.gateway.support import KEY, Gateway, serving, settings_for


def browser(gateway: Gateway) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=10)


async def signed_in(gateway: Gateway, client: httpx.AsyncClient) -> None:
    ticket = await tickets.issue(gateway.redis, "default", seconds=60)
    assert (await client.get("/session", params={"ticket": ticket})).status_code == 303


async def test_a_key_opens_the_api_in_either_header(gateway: Gateway) -> None:
    async with browser(gateway) as client:
        for headers in ({"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {KEY}"}, {"X-API-Key": KEY}):
            assert (await client.get("/api/agent", headers=headers)).status_code == 200


async def test_further_keys_of_the_settings_are_known_too(redis_url: str, tmp_path: Path) -> None:
    more = AuthSettings(keys=["another-key-of-sixteen"])  # type: ignore[list-item]
    async with serving(settings_for(redis_url, tmp_path, auth=more)) as gateway, browser(gateway) as client:
        for key in (KEY, "another-key-of-sixteen"):
            assert (await client.get("/api/agent", headers={"X-API-Key": key})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": "ké"},
        {"Authorization": "Bearer wrong", "X-API-Key": KEY},
    ],
)
async def test_without_a_valid_key_the_answer_is_401(gateway: Gateway, headers: dict[str, str]) -> None:
    async with browser(gateway) as client:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        for path in ("/api/agent", f"/api/agent/{new_thread_id()}/stream", "/api/runs/x/events"):
            answer = await client.get(path, headers=raw)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_gateway_without_any_key_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(AppError) as error:
        create_app(Settings(data=tmp_path))
    assert error.value.code is ErrorCode.INVALID_CONFIG


async def test_the_printed_link_signs_in_once(gateway: Gateway) -> None:
    async with browser(gateway) as client, browser(gateway) as second:
        ticket = await tickets.issue(gateway.redis, "default", seconds=60)
        assert ticket not in str(await gateway.redis.keys("*"))
        answer = await client.get("/session", params={"ticket": ticket})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert KEY not in cookie
        assert (await client.get("/api/agent")).status_code == 200
        again = await second.get("/session", params={"ticket": ticket})
        assert again.status_code == 401
        assert "set-cookie" not in again.headers
        assert (await second.get("/api/agent")).status_code == 401


@pytest.mark.parametrize("ticket", ["", "x", "a" * 5000])
async def test_a_link_nobody_printed_signs_nobody_in(gateway: Gateway, ticket: str) -> None:
    async with browser(gateway) as client:
        assert (await client.get("/session", params={"ticket": ticket})).status_code == 401


async def test_a_cookie_changes_something_only_from_the_gateways_own_pages(gateway: Gateway) -> None:
    own = f"http://127.0.0.1:{gateway.port}"
    async with browser(gateway) as client:
        await signed_in(gateway, client)
        for headers, status in (
            ({"Origin": own}, 200),
            ({"Sec-Fetch-Site": "same-origin"}, 200),
            ({"Origin": "http://127.0.0.1:1"}, 403),
            ({"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"}, 403),
            ({"Origin": "null"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({}, 403),
        ):
            assert (await client.post("/api/agent/initiate", headers=headers)).status_code == status, headers


async def test_a_key_file_whose_key_can_be_guessed_is_refused(redis_url: str, tmp_path: Path) -> None:
    settings = settings_for(redis_url, tmp_path)
    (tmp_path / "key").write_text("password1\n")
    with pytest.raises(AppError, match="at least 16 characters"):
        create_app(settings)


async def test_an_altered_cookie_is_none(gateway: Gateway) -> None:
    async with browser(gateway) as client:
        await signed_in(gateway, client)
        [(name, value)] = client.cookies.items()
        client.cookies.clear()
        for altered in (value[:-2], "x" + value, value.replace(".", ""), "", "é", "a.b.c"):
            answer = await client.get("/api/agent", headers=[(b"Cookie", f"{name}={altered}".encode())])
            assert answer.status_code == 401


async def test_two_stacks_on_one_host_have_cookies_of_different_names(gateway: Gateway, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    settings = settings_for(str(gateway.app.state.services.settings.redis.url), other)
    (other / "key").write_text("tl_another-stack-s-key")
    async with serving(settings) as second, browser(gateway) as client:
        await signed_in(gateway, client)
        client.base_url = httpx.URL(f"http://127.0.0.1:{second.port}")
        assert (await client.get("/api/agent")).status_code == 401
        await signed_in(second, client)
        assert len(client.cookies) == 2


async def test_a_stream_ticket_opens_streams_and_nothing_else(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.finished_run(thread_id)
    answer = await gateway.client.post("/api/stream-tickets")
    assert answer.json()["expires_in"] == 60
    params = {"ticket": answer.json()["ticket"]}
    async with browser(gateway) as client:
        stream = await client.get(f"/api/agent/{thread_id}/stream", params={**params, "run_id": run_id})
        assert stream.status_code == 200
        assert "run.completed" in stream.text
        assert (await client.get(f"/api/runs/{run_id}/events", params=params)).status_code == 200
        assert (await client.get(f"/api/runs/{run_id}", params=params)).status_code == 401
        assert (await client.get(f"/api/runs/{run_id}/events", params={"ticket": "x"})).status_code == 401


def test_a_signed_token_is_for_its_purpose_its_secret_and_its_time() -> None:
    token = Signer(b"secret", "a").sign({"workspace": "w"}, seconds=60)
    claims = Signer(b"secret", "a").verify(token)
    assert claims
    assert claims["workspace"] == "w"
    assert claims["expires"] > time.time()
    assert Signer(b"secret", "b").verify(token) is None
    assert Signer(b"other", "a").verify(token) is None
    assert Signer(b"secret", "a").verify(Signer(b"secret", "a").sign({}, seconds=-1)) is None


async def test_what_belongs_to_another_workspace_does_not_exist(gateway: Gateway) -> None:
    thread_id = new_thread_id()
    await gateway.store.create_thread(NewThread(thread_id, "another"))
    run_id = new_run_id(thread_id)
    await gateway.store.submit(NewRun(run_id, "another", {"task": "x"}), queued={})
    mine = await gateway.thread()
    gets = ["", "/messages", "/runs", "/stream", f"/stream?run_id={run_id}"]
    paths = [("GET", f"/api/agent/{thread_id}{path}") for path in gets]
    paths += [("GET", f"/api/runs/{run_id}{path}") for path in ("", "/events", "/steps")]
    paths += [("GET", f"/api/agent/{mine}/stream?run_id={run_id}"), ("POST", f"/api/runs/{run_id}/cancel")]
    paths += [("POST", f"/api/agent/{thread_id}/execute")]
    for method, path in paths:
        body = {"task": "x"} if path.endswith("execute") else None
        answer = await gateway.client.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    stream = await gateway.client.get(f"/api/runs/{run_id}/events", headers={"Accept": "text/event-stream"})
    assert stream.status_code == 404
    listed = (await gateway.client.get("/api/agent")).json()["items"]
    assert [thread["thread_id"] for thread in listed] == [mine]


async def test_with_auth_off_only_local_names_and_own_pages_are_served(redis_url: str, tmp_path: Path) -> None:
    settings = Settings(
        data=tmp_path,
        auth=AuthSettings(enabled=False),
        redis=settings_for(redis_url, tmp_path).redis,
        api=ApiSettings(public_url="https://agents.example.com"),
    )
    async with serving(settings) as gateway, browser(gateway) as client:
        own = f"http://127.0.0.1:{gateway.port}"
        for headers, status in (
            ({}, 200),
            ({"Origin": own}, 200),
            ({"Host": f"localhost:{gateway.port}"}, 200),
            ({"Host": "agents.example.com"}, 200),
            ({"Origin": "https://agents.example.com"}, 200),
            ({"Origin": "https://evil.example"}, 403),
            ({"Host": "evil.example"}, 403),
            ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ):
            answer = await client.post("/api/agent/initiate", headers=headers)
            assert answer.status_code == status, headers
