"""Two projects of one workspace: whoever is limited to one of them sees the rows of that one alone."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from shared.channels import ChannelEventType
from shared.db.tables.archive import runs
from shared.ids import SHARDS
from shared.types import JSON
from tests.gateway.support import Gateway
from tests.gateway.tenants import archive_all, client_of, new_key, new_project, new_workspace, waiting_run
from tests.gateway.test_agents import tell
from tests.gateway.websockets import refusal, websocket

ASK = {"runnable_type": "function", "runnable_id": "ask"}


@dataclass(frozen=True)
class Side:
    """A caller with a key of a project, or of the whole workspace (`project` is then None)."""

    key: str
    project: str | None
    client: httpx.AsyncClient

    async def post(self, path: str, **body: Any) -> JSON:
        answer = await self.client.post(path, json=body)
        assert answer.is_success, answer.text
        return dict(answer.json())

    async def get(self, path: str, **params: Any) -> Any:
        answer = await self.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def agent(self, **body: Any) -> JSON:
        return await self.post("/api/agents", **{"name": "A", "definition_id": "chat", "activate": True, **body})

    async def ids(self, path: str, name: str = "id", **params: Any) -> list[str]:
        return [item[name] for item in (await self.get(path, **params))["items"]]


@dataclass(frozen=True)
class Sides:
    gateway: Gateway
    whole: Side
    one: Side
    two: Side


@pytest.fixture
async def sides(sql_gateway: Gateway) -> AsyncIterator[Sides]:
    await tell(sql_gateway)
    workspace = await new_workspace(sql_gateway, "w")
    projects = [None, *[await new_project(sql_gateway, workspace, name) for name in ("one", "two")]]
    async with AsyncExitStack() as stack:
        made = []
        for project in projects:
            key = await new_key(sql_gateway, workspace, scopes=["admin"], project_id=project)
            made.append(Side(key, project, await stack.enter_async_context(client_of(sql_gateway, key))))
        yield Sides(sql_gateway, *made)


async def test_an_agent_is_of_the_project_that_its_maker_is_limited_to_and_stays_there(sides: Sides) -> None:
    one, two = sides.one, sides.two
    agent = await one.agent()
    assert agent["project_id"] == one.project
    path = f"/api/agents/{agent['id']}"
    kept = (await one.client.patch(path, json={"project_id": None})).json()
    assert kept["project_id"] == one.project
    assert (await one.client.patch(path, json={"project_id": two.project})).status_code == 404
    assert (await one.client.post("/api/agents", json={"name": "x", "project_id": two.project})).status_code == 404
    moved = await sides.whole.client.patch(path, json={"project_id": None})
    assert moved.json()["project_id"] is None
    assert (await one.client.get(path)).status_code == 404


async def test_agents_with_all_that_is_theirs_are_there_for_their_project_only(sides: Sides) -> None:
    one, two = sides.one, sides.two
    mine, common = (await one.agent())["id"], (await sides.whole.agent())["id"]
    path = f"/api/agents/{mine}"
    await one.post(f"{path}/context", data={"secret": 1})
    message = (await one.post(f"{path}/messages", content="secret"))["id"]
    asked = [
        *(("GET", each) for each in ("", "/context", "/context/versions", "/messages")),
        *(("POST", each) for each in ("/activate", "/deactivate", "/shutdown", f"/messages/{message}/ack")),
        ("DELETE", ""),
    ]
    for method, rest in asked:
        assert (await two.client.request(method, path + rest)).status_code == 404, (method, rest)
    for rest, body in (
        ("/context", {"data": {}}),
        ("/context/rollback", {"version": 1}),
        ("/messages", {"content": "x"}),
    ):
        assert (await two.client.post(path + rest, json=body)).status_code == 404, rest
    assert (await two.client.patch(path, json={"name": "x"})).status_code == 404
    assert await one.ids("/api/agents") == [mine]
    assert await two.ids("/api/agents") == []
    assert await two.ids("/api/agents", project_id=one.project) == []
    assert await sides.whole.ids("/api/agents") == [common, mine]


async def test_an_agent_of_another_project_runs_nothing(sides: Sides) -> None:
    one, two = sides.one, sides.two
    agent = (await one.agent())["id"]
    asked = {
        "/api/agent/initiate": {"agent_id": agent},
        "/api/runs": {"runnable_id": agent, "input": {"task": "x"}},
    }
    for path, body in asked.items():
        assert (await two.client.post(path, json=body)).status_code == 404, path
    chat = await two.client.post("/api/chat/stream", json={"agent": agent, "input": "x"})
    assert chat.status_code == 501


async def test_a_run_is_of_its_agents_project_unless_its_thread_says_otherwise(sides: Sides) -> None:
    one, two, whole = sides.one, sides.two, sides.whole
    agent, work = (await one.agent())["id"], {"input": {"task": "x"}}
    run = await whole.post("/api/runs", runnable_id=agent, **work)
    assert run["project_id"] == one.project
    thread = (await whole.post("/api/agent/initiate", agent_id=agent))["thread_id"]
    assert (await one.get(f"/api/agent/{thread}"))["project_id"] == one.project
    other = await whole.post("/api/runs", runnable_id=agent, project_id=two.project, **work)
    assert other["project_id"] == two.project
    theirs = (await two.post("/api/agent/initiate"))["thread_id"]
    in_theirs = await whole.post("/api/runs", runnable_id=agent, thread_id=theirs, **work)
    assert in_theirs["project_id"] == two.project
    assert set(await two.ids("/api/runs", "run_id")) == {other["run_id"], in_theirs["run_id"]}


async def test_a_run_can_be_put_into_a_project(sides: Sides) -> None:
    one, two, whole = sides.one, sides.two, sides.whole
    assert (await whole.post("/api/runs", **ASK, project_id=one.project))["project_id"] == one.project
    assert (await one.post("/api/runs", **ASK))["project_id"] == one.project
    assert (await one.client.post("/api/runs", json={**ASK, "project_id": two.project})).status_code == 404
    assert (await whole.client.post("/api/runs", json={**ASK, "project_id": "none-such"})).status_code == 404
    thread = (await one.post("/api/agent/initiate"))["thread_id"]
    in_it = {**ASK, "thread_id": thread}
    assert (await whole.post("/api/runs", **in_it, project_id=one.project))["project_id"] == one.project
    assert (await whole.client.post("/api/runs", json={**in_it, "project_id": two.project})).status_code == 404


async def test_lists_of_threads_and_runs_and_their_cursors_name_none_of_another_project(sides: Sides) -> None:
    one, two = sides.one, sides.two
    mine, mine_too, others = [], [], set()
    for _ in range(3):
        mine.append((await one.post("/api/agent/initiate"))["thread_id"])
        mine_too.append((await one.post("/api/runs", **ASK))["run_id"])
        others |= {(await two.post("/api/agent/initiate"))["thread_id"]}
        others |= {(await two.post("/api/runs", **ASK))["run_id"]}
    for path, name, expected in (("/api/agent", "thread_id", mine), ("/api/runs", "run_id", mine_too)):
        found, cursor = list[str](), None
        while page := await one.get(path, limit=1, **({"cursor": cursor} if cursor else {})):
            found += [item[name] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
            assert not any(other in cursor for other in others)
        assert set(expected) <= set(found)
        assert not others & {thread_id.partition(".")[0] for thread_id in found}
        assert await one.ids(path, name, project_id=two.project) == []


async def test_usage_counts_the_projects_runs(sides: Sides) -> None:
    one, two = sides.one, sides.two
    for side, count in ((one, 1), (two, 2)):
        for _ in range(count):
            await side.post("/api/runs", **ASK)
    await archive_all(sides.gateway)
    async with sides.gateway.app.state.services.db.begin() as c:
        await c.execute(update(runs).values(cost=1))
    assert [(row["runs"], row["cost"]) for row in await one.get("/api/usage")] == [(1, 1)]
    assert [row["project_id"] for row in await one.get("/api/usage", by="project_id")] == [one.project]
    assert await one.get("/api/usage", project_id=two.project) == []
    assert [row["runs"] for row in await sides.whole.get("/api/usage")] == [3]


async def test_what_waits_for_people_is_shown_page_by_page_to_its_project(sides: Sides) -> None:
    one, two = sides.one, sides.two
    mine = [await waiting_run(sides.gateway, one.client)]
    theirs = [await waiting_run(sides.gateway, two.client) for _ in range(3)]
    mine.append(await waiting_run(sides.gateway, one.client))
    first = await one.get("/api/approvals", limit=1)
    assert [item["run_id"] for item in first["items"]] == mine[:1]
    assert not any(run in (first["next_cursor"] or "") for run in theirs)
    second = await one.get("/api/approvals", limit=1, cursor=first["next_cursor"])
    assert [item["run_id"] for item in second["items"]] == mine[1:]
    assert second["next_cursor"] is None
    assert len(await sides.whole.ids("/api/approvals", "run_id")) == 5
    step = f"{mine[0]}.1"
    await one.post(f"/api/steps/{step}/human-complete", output={"approved": True})
    outside = sides.gateway.app.state.services.outside
    for timer in await outside.store.timers.due(range(SHARDS), 10):
        await outside.answers.on_time(timer)
    listed = [
        await sides.gateway.redis.zrange(name, 0, -1) async for name in sides.gateway.redis.scan_iter("approvals:*")
    ]
    assert not any(step in each for each in listed)
    assert await one.ids("/api/approvals", "run_id") == mine[1:]


async def test_agents_sockets_tell_of_the_project(sides: Sides) -> None:
    one, two = sides.one, sides.two
    mine, theirs, common = [(await side.agent())["id"] for side in (one, two, sides.whole)]
    named = {"x-api-key": two.key}
    assert (await refusal(sides.gateway, f"/ws/agents/{mine}", named))[0] == 404
    assert (await refusal(sides.gateway, f"/ws/agents/stream?agent_id={theirs},{mine}", named))[0] == 404
    async with (
        websocket(sides.gateway, "/ws/agents/stream", {"x-api-key": two.key}) as client,
        websocket(sides.gateway, f"/ws/agents/{theirs}", {"x-api-key": two.key}) as alone,
        websocket(sides.gateway, "/ws/agents/stream", {"x-api-key": sides.whole.key}) as everything,
    ):
        for side, agent in ((one, mine), (sides.whole, common), (two, theirs)):
            await side.post(f"/api/agents/{agent}/messages", content="x")
        told = [await each.until(event=ChannelEventType.MESSAGE) for each in (client, alone)]
        assert [each["data"]["agent_id"] for each in told] == [theirs] * 2
        all_told = [each["data"]["agent_id"] for each in await everything.take(3)]
        assert all_told == [mine, common, theirs]


async def test_an_open_socket_tells_no_more_of_an_agent_that_has_moved_to_another_project(sides: Sides) -> None:
    one, whole = sides.one, sides.whole
    moving, staying = [(await one.agent())["id"] for _ in range(2)]
    async with websocket(
        sides.gateway, f"/ws/agents/stream?agent_id={moving},{staying}", {"x-api-key": one.key}
    ) as client:
        await whole.client.patch(f"/api/agents/{moving}", json={"project_id": sides.two.project})
        await whole.post(f"/api/agents/{moving}/messages", content="secret")
        await whole.post(f"/api/agents/{staying}/messages", content="x")
        assert (await client.next())["data"]["agent_id"] == staying


async def test_a_sessions_name_is_its_projects(sides: Sides) -> None:
    threads = []
    for side in (sides.one, sides.two, sides.whole):
        body = {"agent": "chat", "input": "x", "session_id": "s"}
        async with side.client.stream("POST", "/api/chat/stream", json=body) as answer:
            assert answer.status_code == 200
        [thread] = await side.ids("/api/agent", "thread_id", **({} if side.project else {"limit": 1}))
        assert (await side.get(f"/api/agent/{thread}"))["project_id"] == side.project
        threads.append(thread)
    assert len(set(threads)) == 3


async def test_an_events_key_and_an_idempotency_key_are_the_projects(sides: Sides) -> None:
    answers = []
    for side in (sides.one, sides.two):
        made = await side.client.post("/api/agent/initiate", headers={"Idempotency-Key": "k"})
        answers.append(made.json()["thread_id"])
        assert (await side.client.post("/api/events", json={"name": "go", "key": "k"})).status_code == 403
    assert len(set(answers)) == 2


async def test_a_project_whose_threads_are_gone_can_be_deleted(sides: Sides) -> None:
    project = (await sides.whole.post("/api/projects", name="short"))["id"]
    thread = (await sides.whole.post("/api/agent/initiate", project_id=project))["thread_id"]
    assert (await sides.whole.client.delete(f"/api/projects/{project}")).status_code == 409
    assert (await sides.whole.client.delete(f"/api/agent/{thread}")).status_code == 204
    assert (await sides.whole.client.delete(f"/api/projects/{project}")).status_code == 204


async def test_reading_a_context_writes_nothing(sides: Sides) -> None:
    path = f"/api/agents/{(await sides.one.agent())['id']}/context"
    for _ in range(2):
        read = await sides.one.client.get(path)
        assert (read.json()["version"], read.json()["data"], read.headers["etag"]) == (0, {}, '"0"')
    assert (await sides.one.get(f"{path}/versions"))["items"] == []
    first = await sides.one.client.post(path, json={"data": {"a": 1}}, headers={"If-Match": '"0"'})
    assert (first.status_code, first.json()["version"]) == (201, 1)
    assert (await sides.one.client.post(path, json={"data": {}}, headers={"If-Match": '"0"'})).status_code == 409
