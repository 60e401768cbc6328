"""The same request with the same Idempotency-Key is done once, whatever happens in between."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.idempotency import KEPT_SECONDS, Idempotency
from shared import keys
from shared.tenant import Tenant
from shared.types import JSON
from shared.workers.tools import ToolCard, tell_tools
from tests.gateway.support import Gateway, serving, settings_for
from tests.gateway.test_agents import HOOKED, made, tell


async def post(gateway: Gateway, path: str, key: str, body: Any = None) -> httpx.Response:
    return await gateway.client.post(path, json=body, headers={"Idempotency-Key": key})


async def test_fifty_executes_at_once_with_one_key_are_one_run(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    path = f"/api/agent/{thread_id}/execute"
    answers = await asyncio.gather(*(post(gateway, path, "k", {"task": "x"}) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert await gateway.store.run_ids(thread_id) == [answers[0].json()["run_id"]]
    assert len(await gateway.store.events(thread_id)) == 1


async def test_fifty_initiates_at_once_with_one_key_are_one_thread(gateway: Gateway) -> None:
    answers = await asyncio.gather(*(post(gateway, "/api/agent/initiate", "k") for _ in range(50)))
    assert len({answer.content for answer in answers}) == 1
    assert len((await gateway.client.get("/api/agent")).json()["items"]) == 1


async def test_the_answer_stays_the_same_when_the_run_has_gone_on(gateway: Gateway) -> None:
    path = f"/api/agent/{await gateway.thread()}/execute"
    first = await post(gateway, path, "k", {"task": "x"})
    await gateway.attempt(first.json()["run_id"])
    assert (await post(gateway, path, "k", {"task": "x"})).content == first.content


async def test_a_key_is_not_for_another_request(gateway: Gateway) -> None:
    one, other = await gateway.thread(), await gateway.thread()
    run = (await post(gateway, f"/api/agent/{one}/execute", "k", {"task": "x"})).json()["run_id"]
    for path, body in (
        (f"/api/agent/{one}/execute", {"task": "y"}),
        (f"/api/agent/{one}/execute", {"task": "x", "parameters": {"max_turns": 1}}),
        (f"/api/agent/{other}/execute", {"task": "x"}),
        ("/api/agent/initiate", None),
        (f"/api/runs/{run}/cancel", None),
    ):
        answer = await post(gateway, path, "k", body)
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict"), path
    assert (await gateway.store.run_ids(one), await gateway.store.run_ids(other)) == ([run], [])


async def test_the_same_request_written_differently_is_the_same(gateway: Gateway) -> None:
    path = f"/api/agent/{await gateway.thread()}/execute"
    first = await post(gateway, path, "k", {"task": "x", "parameters": {"max_turns": 1, "max_cost": 2}})
    body = {"on_busy": "enqueue", "parameters": {"max_cost": 2, "max_turns": 1}, "task": "x", "context_data": []}
    assert (await post(gateway, path.replace("/api/", "/api/v1/"), "k", body)).content == first.content


async def test_a_gateway_that_died_between_reserving_and_submitting_does_no_harm(gateway: Gateway) -> None:
    """What it leaves behind is a reservation: the next one goes on with its id."""
    thread_id = await gateway.thread()
    path = f"/api/agent/{thread_id}/execute"
    busy = {"task": "x", "on_busy": "reject"}
    first_run = await gateway.execute(thread_id)
    assert (await post(gateway, path, "k", busy)).status_code == 409
    reserved = str(await gateway.redis.get(keys.idempotency("default", "k"))).split()[1]
    await gateway.client.post(f"/api/runs/{first_run}/cancel")
    assert (await post(gateway, path, "k", busy)).json()["run_id"] == reserved


async def test_a_cancel_that_is_sent_again_cancels_no_later_run(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    first, path = await gateway.execute(thread_id), f"/api/agent/{thread_id}/cancel"
    assert [run["run_id"] for run in (await post(gateway, path, "k")).json()["runs"]] == [first]
    later = await gateway.execute(thread_id)
    again = (await post(gateway, path, "k")).json()["runs"]
    assert [(run["run_id"], run["status"]) for run in again] == [(first, "canceled")]
    assert (await gateway.client.get(f"/api/runs/{later}")).json()["cancel_requested"] is False
    assert [run["run_id"] for run in (await post(gateway, path, "other")).json()["runs"]] == [later]


async def test_a_repeat_is_not_refused_because_its_own_run_keeps_the_thread_busy(gateway: Gateway) -> None:
    path, body = f"/api/agent/{await gateway.thread()}/execute", {"task": "x", "on_busy": "reject"}
    first = await post(gateway, path, "k", body)
    assert first.status_code == 200
    assert (await post(gateway, path, "other", body)).status_code == 409
    assert (await post(gateway, path, "k", body)).content == first.content


async def test_keys_of_different_workspaces_have_nothing_to_do_with_each_other(gateway: Gateway) -> None:
    idempotency = Idempotency(gateway.redis, patience_seconds=1)
    assert await idempotency.reserve(Tenant("a"), "k", ["x"], "1") == "1"
    assert await idempotency.reserve(Tenant("b"), "k", ["y"], "2") == "2"
    assert 0 < await gateway.redis.ttl(keys.idempotency("a", "k")) <= KEPT_SECONDS


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "k\u00e9"])
async def test_a_key_that_is_none_is_refused(gateway: Gateway, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode())]
    answer = await gateway.client.post("/api/agent/initiate", headers=headers)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["place"] == "header.Idempotency-Key"


async def test_a_key_that_is_none_is_refused_before_anything_is_looked_up(gateway: Gateway) -> None:
    answer = await post(gateway, "/api/chat/stream", "a b", {"agent": "nobody", "input": "x"})
    assert answer.status_code == 400


async def test_two_gateways_know_each_others_keys(gateway: Gateway, redis_url: str, tmp_path: Path) -> None:
    async with serving(settings_for(redis_url, tmp_path)) as second:
        path = f"/api/agent/{await gateway.thread()}/execute"
        answers = await asyncio.gather(*(post(g, path, "k", {"task": "x"}) for g in (gateway, second) * 10))
        assert len({answer.content for answer in answers}) == 1


async def test_what_was_made_is_the_answer_also_when_what_it_names_is_gone(gateway: Gateway) -> None:
    await tell(gateway, HOOKED)
    [leader, gone] = [(await made(gateway))["id"] for _ in range(2)]
    nodes = [{"id": "start", "type": "start"}, {"id": "end", "type": "end"}]
    nodes.insert(1, {"id": "a", "type": "agent", "agent_id": gone})
    edges = [{"id": a + b, "from_node_id": a, "to_node_id": b} for a, b in (("start", "a"), ("a", "end"))]
    tool = {"name": "later", "type": "http", "config": {"url": "https://a.test/"}}
    bodies: dict[str, JSON] = {
        "/api/agents": {"name": "B", "definition_id": HOOKED.id},
        "/api/teams": {"name": "T", "leader_agent_id": leader, "member_agent_ids": [gone]},
        "/api/workflows": {"name": "W", "graph": {"nodes": nodes, "edges": edges}},
        "/api/tasks": {"name": "K", "runnable_type": "agent", "runnable_id": gone},
        "/api/tools": tool,
        "/api/agent/initiate": {"agent_id": gone},
    }
    first = {path: await post(gateway, path, path, body) for path, body in bodies.items()}
    assert {answer.status_code for answer in first.values()} <= {200, 201}, [answer.text for answer in first.values()]
    team = f"/api/teams/{first['/api/teams'].json()['id']}"
    assert (await gateway.client.patch(team, json={"member_agent_ids": []})).status_code == 200
    assert (await gateway.client.delete(f"/api/agents/{gone}")).status_code == 204
    await tell(gateway)
    await tell_tools(gateway.redis, [ToolCard("later", "Now a worker's.", "custom", "read", True, {})])
    for path, body in bodies.items():
        again = await post(gateway, path, path, body)
        assert again.status_code == first[path].status_code, again.text
        same = "thread_id" if path.endswith("initiate") else "id"
        assert again.json()[same] == first[path].json()[same]
