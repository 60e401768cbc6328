"""Workspaces and projects over HTTP, and which of them a request is for."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from shared.config import DatabaseSettings, JwtSettings
from shared.ids import new_id
from tests.gateway.support import Gateway, serving, settings_for
from tests.gateway.tenants import client_of, new_key, new_project, new_workspace

SECRET = "a-secret-of-at-least-thirty-two-bytes"
ISSUER = "https://login.example/"


@pytest.fixture
async def sso(redis_url: str, tmp_path: Path, database_url: str) -> AsyncIterator[Gateway]:
    """A gateway that also takes tokens."""
    given = JwtSettings(secret=SECRET, issuer=ISSUER, audience="trunkline")  # type: ignore[arg-type]
    database = DatabaseSettings(url=database_url)  # type: ignore[arg-type]
    async with serving(settings_for(redis_url, tmp_path, database=database, jwt=given)) as gateway:
        yield gateway


def token(**claims: Any) -> str:
    known = {"iss": ISSUER, "aud": "trunkline", "exp": time.time() + 60, "sub": "ann", "scope": "read run"}
    return jwt.encode({**known, **claims}, SECRET, "HS256")


async def test_a_workspace_is_made_changed_and_deleted(sql_gateway: Gateway) -> None:
    client = sql_gateway.client
    made = await client.post("/api/workspaces", json={"slug": "acme", "name": "Acme", "metadata": {"plan": 1}})
    path = f"/api/workspaces/{made.json()['id']}"
    assert (made.status_code, made.headers["location"], made.headers["etag"]) == (201, path, '"1"')
    changed = await client.patch(path, json={"name": "Acme Ltd"}, headers={"If-Match": '"1"'})
    assert changed.json() == {
        **made.json(), "name": "Acme Ltd", "version": 2, "updated_at": changed.json()["updated_at"]
    }  # fmt: skip
    assert (await client.get(path)).json() == changed.json()
    tag = {"If-Match": 'W/"1"'}
    assert (await client.patch(path, json={"name": "x"}, headers=tag)).status_code == 409
    assert (await client.patch(path, json={"name": "x", "expected_version": 1})).status_code == 409
    for no_tag in ("x", "", "null"):  # an empty one is a client's mistake: it must not change what it has not read
        assert (await client.patch(path, json={}, headers={"If-Match": no_tag})).status_code == 400
    assert (await client.delete(path, headers=tag)).status_code == 409
    assert (await client.delete(path, headers={"If-Match": changed.headers["etag"]})).status_code == 204
    assert (await client.get(path)).status_code == 404
    assert (await client.delete(path)).status_code == 404


async def test_slugs_are_one_workspaces_each(sql_gateway: Gateway) -> None:
    await new_workspace(sql_gateway, "acme")
    taken = await sql_gateway.client.post("/api/workspaces", json={"slug": "acme", "name": "Other"})
    assert (taken.status_code, taken.json()["code"]) == (409, "conflict")
    for slug in ("Acme", "-a", "", "a b", "a" * 64, "a\0"):
        answer = await sql_gateway.client.post("/api/workspaces", json={"slug": slug, "name": "x"})
        assert answer.status_code == 400, slug


async def test_the_same_request_again_makes_no_second_workspace_or_project(sql_gateway: Gateway) -> None:
    for path, body in (("/api/workspaces", {"slug": "acme", "name": "A"}), ("/api/projects", {"name": "P"})):
        answers = [
            await sql_gateway.client.post(
                path, json=body, headers={"Idempotency-Key": f"once {path}".replace(" ", "-")}
            )
            for _ in range(3)
        ]
        assert [answer.status_code for answer in answers] == [201] * 3
        assert len({answer.json()["id"] for answer in answers}) == 1


async def test_a_workspace_in_use_and_the_default_one_stay(sql_gateway: Gateway) -> None:
    workspace = await new_workspace(sql_gateway, "acme")
    await sql_gateway.client.post("/api/agent/initiate", headers={"X-Workspace-Id": workspace})
    for each in (workspace, "default"):
        assert (await sql_gateway.client.delete(f"/api/workspaces/{each}")).status_code == 409


async def test_keys_of_a_deleted_workspace_open_nothing(sql_gateway: Gateway) -> None:
    workspace = await new_workspace(sql_gateway, "acme")
    key = await new_key(sql_gateway, workspace)
    async with client_of(sql_gateway, key) as client:
        assert (await client.get("/api/agent")).status_code == 200
        assert (await sql_gateway.client.delete(f"/api/workspaces/{workspace}")).status_code == 204
        assert (await client.get("/api/agent")).status_code == 401


@pytest.mark.parametrize("way", ["X-Workspace-Id", "X-Workspace-Slug", "workspace_id", "workspace_slug"])
async def test_the_operator_selects_any_workspace_in_four_ways(sql_gateway: Gateway, way: str) -> None:
    workspace = await new_workspace(sql_gateway, "acme")
    thread = await sql_gateway.thread()
    value = "acme" if "slug" in way.lower() else workspace
    selected: dict[str, Any] = {"params": {way: value}} if "_" in way else {"headers": {way: value}}
    made = await sql_gateway.client.post("/api/agent/initiate", **selected)
    listed = (await sql_gateway.client.get("/api/agent", **selected)).json()["items"]
    assert [each["thread_id"] for each in listed] == [made.json()["thread_id"]]
    assert (await sql_gateway.client.get(f"/api/agent/{thread}", **selected)).status_code == 404
    assert (await sql_gateway.client.get(f"/api/agent/{thread}")).status_code == 200


async def test_what_cannot_be_selected_is_not_there(sql_gateway: Gateway) -> None:
    mine, theirs = await new_workspace(sql_gateway, "mine"), await new_workspace(sql_gateway, "theirs")
    key = await new_key(sql_gateway, mine)
    async with client_of(sql_gateway, key) as client:
        for name, value, status in (
            ("X-Workspace-Id", mine, 200),
            ("X-Workspace-Slug", "mine", 200),
            ("X-Workspace-Id", theirs, 404),
            ("X-Workspace-Slug", "theirs", 404),
            ("X-Workspace-Id", "default", 404),
            ("X-Workspace-Slug", "nobody", 404),
            ("X-Workspace-Id", "../x", 404),
            ("X-Workspace-Id", "", 404),
        ):
            assert (await client.get("/api/agent", headers={name: value})).status_code == status, (name, value)
        both = {"X-Workspace-Id": mine, "X-Workspace-Slug": "theirs"}
        assert (await client.get("/api/agent", headers=both)).status_code == 404
        assert (await client.get("/api/agent?workspace_id=%00")).status_code == 404
        items = (await client.get("/api/workspaces")).json()["items"]
        assert [each["id"] for each in items] == [mine]
    both = {"X-Workspace-Id": mine, "X-Workspace-Slug": "theirs"}
    assert (await sql_gateway.client.get("/api/agent", headers=both)).status_code == 404
    assert (await sql_gateway.client.get("/api/agent", headers={"X-Workspace-Id": new_id()})).status_code == 404


async def test_a_token_opens_the_workspaces_that_it_names(sso: Gateway) -> None:
    one, two, three = [await new_workspace(sso, slug) for slug in ("one", "two", "three")]
    async with client_of(sso, token(workspace=[one, two])) as client:
        assert {each["slug"] for each in (await client.get("/api/workspaces")).json()["items"]} == {"one", "two"}
        for workspace, status in ((one, 200), (two, 200), (three, 404), ("default", 404)):
            answer = await client.get("/api/agent", headers={"X-Workspace-Id": workspace})
            assert answer.status_code == status
        assert (await client.post("/api/projects", json={"name": "x"})).status_code == 403
        ticket = (await client.post("/api/stream-tickets", headers={"X-Workspace-Slug": "two"})).json()["ticket"]
        thread = (await client.post("/api/agent/initiate")).json()["thread_id"]
    async with sso.stream(f"/api/agent/{thread}/stream?ticket={ticket}", {"authorization": ""}) as stream:
        assert stream.status == 404
    for gone in (new_id(), "nope"):
        async with client_of(sso, token(workspace=gone)) as client:
            assert (await client.get("/api/agent")).status_code == 403
    async with client_of(sso, token(workspace=one, aud="another")) as client:
        assert (await client.get("/api/agent")).status_code == 401


async def test_runs_are_for_the_user_whom_the_token_names(sso: Gateway) -> None:
    async with client_of(sso, token(workspace="default")) as client:
        thread = (await client.post("/api/agent/initiate")).json()["thread_id"]
        users = []
        for body in ({"task": "x"}, {"task": "x", "user_uuid": "bob"}):
            run = (await client.post(f"/api/agent/{thread}/execute", json=body)).json()["run_id"]
            users.append((await client.get(f"/api/runs/{run}")).json()["user_uuid"])
        body = {"runnable_type": "function", "runnable_id": "f"}
        users.append((await client.post("/api/runs", json=body)).json()["user_uuid"])
    assert users == ["ann", "bob", "ann"]


async def test_a_token_for_a_project_sees_that_project_only(sso: Gateway) -> None:
    one, two = [await new_project(sso, "default", name) for name in ("one", "two")]
    outside = await sso.thread()
    async with client_of(sso, token(workspace="default", project=one)) as client:
        inside = await client.post("/api/agent/initiate", json={"projectId": one})
        assert (await client.post("/api/agent/initiate", json={"project_id": two})).status_code == 404
        run = (await client.post("/api/runs", json={"input": {"task": "x"}})).json()
        assert run["project_id"] == one
        seen = {each["thread_id"] for each in (await client.get("/api/agent")).json()["items"]}
        assert seen == {inside.json()["thread_id"], run["thread_id"]}
        assert (await client.get(f"/api/agent/{outside}")).status_code == 404
        fork = (await client.post(f"/api/agent/{run['thread_id']}/fork")).json()["thread_id"]
        assert (await client.get(f"/api/agent/{fork}")).json()["project_id"] == one
        forked = (await client.post(f"/api/runs/{run['run_id']}/fork")).json()
        assert forked["project_id"] == one
    async with client_of(sso, token(workspace="default", project="gone")) as client:
        assert (await client.post("/api/agent/initiate")).status_code == 404
    assert len((await sso.client.get("/api/agent")).json()["items"]) == 5


async def test_two_projects_share_no_idempotency_key(sso: Gateway) -> None:
    threads = set()
    for name in ("one", "two"):
        project = await new_project(sso, "default", name)
        async with client_of(sso, token(workspace="default", project=project)) as client:
            answer = await client.post("/api/agent/initiate", headers={"Idempotency-Key": "same"})
            threads.add(answer.json()["thread_id"])
    assert len(threads) == 2


async def test_a_project_in_use_stays(sql_gateway: Gateway) -> None:
    project = await new_project(sql_gateway, "default", "one")
    path = f"/api/projects/{project}"
    await sql_gateway.client.post("/api/agent/initiate", json={"project_id": project})
    assert (await sql_gateway.client.delete(path)).status_code == 409
    empty = await new_project(sql_gateway, "default", "two")
    assert (await sql_gateway.client.delete(f"/api/projects/{empty}", headers={"If-Match": "2"})).status_code == 409
    assert (await sql_gateway.client.delete(f"/api/projects/{empty}", headers={"If-Match": "1"})).status_code == 204
    assert (await sql_gateway.client.post("/api/agent/initiate", json={"project_id": empty})).status_code == 404
    patched = await sql_gateway.client.patch(path, json={"description": "of one", "metadata": {"a": None}})
    assert (patched.json()["name"], patched.json()["description"]) == ("one", "of one")
    for body in ({"name": "a\0"}, {"metadata": {"a": ["\0"]}}, {"name": " "}):
        assert (await sql_gateway.client.patch(path, json=body)).status_code == 400
    fine = {"metadata": {"a": "\\u0000"}}
    assert (await sql_gateway.client.patch(path, json=fine)).json()["metadata"] == fine["metadata"]
    assert (await sql_gateway.client.get("/api/projects/a%00b")).status_code == 404
