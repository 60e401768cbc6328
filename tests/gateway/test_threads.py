"""Threads over HTTP: opened, executed in, listed, read."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.queue import QUEUES
from shared.threads.attempt import Change
from shared.types import Priority
from tests.gateway.support import Gateway, finish, until


async def all_pages(gateway: Gateway, path: str, limit: int) -> list[Any]:
    """The items of all pages; each but the last is full."""
    found: list[Any] = []
    params: dict[str, str | int] = {"limit": limit}
    while True:
        page = (await gateway.client.get(path, params=params)).json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        assert len(page["items"]) == limit
        params["cursor"] = page["next_cursor"]


async def test_a_thread_keeps_its_metadata_and_context(gateway: Gateway) -> None:
    body = {"metadata": {"customer": "c-17", "\u00fc": [1, None, {"a": 1.5}]}, "context": {"language": "de"}}
    opened = (await gateway.client.post("/api/agent/initiate", json=body)).json()
    assert opened.keys() == {"thread_id", "created_at", "status"}
    assert opened["status"] == "active"
    age = datetime.now(UTC) - datetime.fromisoformat(opened["created_at"])
    assert abs(age) < timedelta(seconds=10)
    read = (await gateway.client.get(f"/api/agent/{opened['thread_id']}")).json()
    assert {name: read[name] for name in body} == body
    assert {name: read[name] for name in opened} == opened
    assert (read["current_run_id"], read["last_event_id"]) == (None, "0-0")


@pytest.mark.parametrize("body", [None, b"", b"{}", b"null"])
async def test_a_thread_needs_nothing(gateway: Gateway, body: bytes | None) -> None:
    headers = {"Content-Type": "application/json"} if body is not None else {}
    answer = await gateway.client.post("/api/agent/initiate", content=body, headers=headers)
    assert answer.status_code == 200


async def test_threads_are_listed_newest_first_in_pages(gateway: Gateway) -> None:
    ids = sorted([await gateway.thread() for _ in range(7)], reverse=True)
    for limit in (1, 3, 7, 200):
        assert [thread["thread_id"] for thread in await all_pages(gateway, "/api/agent", limit)] == ids


async def test_executing_accepts_a_run_and_rings_for_it_once(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    body = {
        "task": "count to three",
        "context_data": [{"type": "text", "content": "some text", "name": "a.txt"}],
        "parameters": {"model": "m", "max_turns": 3, "max_cost": 1, "temperature": 0.5, "tools": ["bash"]},
        "user_uuid": "u-1",
    }
    answer = (await gateway.client.post(f"/api/agent/{thread_id}/execute", json=body)).json()
    assert answer.keys() == {"thread_id", "run_id", "status", "created_at"}
    assert (answer["thread_id"], answer["status"]) == (thread_id, "pending")
    run = await gateway.store.run(answer["run_id"])
    assert run
    assert run.input == {"task": body["task"], "context_data": body["context_data"]}
    assert run.parameters == body["parameters"]
    assert run.user_uuid == "u-1"
    second = await gateway.execute(thread_id)
    await until(lambda: _queued(gateway, 1))
    assert (await gateway.client.get(f"/api/agent/{thread_id}")).json()["current_run_id"] == answer["run_id"]
    runs = (await gateway.client.get(f"/api/agent/{thread_id}/runs")).json()["items"]
    assert {run["run_id"] for run in runs} == {answer["run_id"], second}


async def _queued(gateway: Gateway, count: int, priority: Priority = Priority.NORMAL) -> bool:
    return await gateway.redis.llen(QUEUES[priority]) == count


async def test_every_way_to_start_a_run_rings_in_the_queue_of_its_priority(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id, parameters={"priority": "high"})
    await until(lambda: _queued(gateway, 1, Priority.HIGH))
    body = {"runnable_type": "agent", "input": {"task": "x"}, "parameters": {"priority": "low"}}
    low = (await gateway.client.post("/api/runs", json=body)).json()["run_id"]
    await until(lambda: _queued(gateway, 1, Priority.LOW))
    for canceled in (run_id, low):
        await gateway.client.post(f"/api/runs/{canceled}/cancel")
    assert (await gateway.client.post(f"/api/runs/{run_id}/retry")).status_code == 201
    await until(lambda: _queued(gateway, 2, Priority.HIGH))
    assert (await gateway.client.post(f"/api/runs/{low}/fork", json={})).status_code == 201
    await until(lambda: _queued(gateway, 2, Priority.LOW))
    assert await _queued(gateway, 0)


async def test_a_busy_thread_queues_or_rejects_as_asked(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    first = await gateway.execute(thread_id)
    answer = await gateway.client.post(f"/api/agent/{thread_id}/execute", json={"task": "x", "on_busy": "reject"})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert first in answer.json()["detail"]
    await gateway.execute(thread_id, on_busy="enqueue")
    assert len(await gateway.store.run_ids(thread_id)) == 2


async def test_the_first_event_is_there_before_the_answer(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    async with gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
        assert (await stream.frames(1))[0].event == "waiting"
        run_id = await gateway.execute(thread_id, "the task")
        [queued] = await stream.frames(1)
        assert (queued.data["type"], queued.data["run_id"]) == ("run.queued", run_id)
        assert queued.data["data"] == {"task": "the task"}


async def test_messages_are_read_oldest_first_in_pages(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    assert (await gateway.client.get(f"/api/agent/{thread_id}/messages")).json() == {"items": [], "next_cursor": None}
    attempt = await gateway.attempt(await gateway.execute(thread_id))
    messages = [{"role": "user", "content": str(number)} for number in range(5)]
    await attempt.commit(Change(messages=messages))
    await finish(attempt)
    for limit in (1, 2, 5, 6):
        assert await all_pages(gateway, f"/api/agent/{thread_id}/messages", limit) == messages


async def test_runs_of_a_thread_are_read_oldest_first_in_pages(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    ids = {await gateway.execute(thread_id) for _ in range(5)}
    for limit in (1, 2, 5, 6):
        runs = await all_pages(gateway, f"/api/agent/{thread_id}/runs", limit)
        assert {run["run_id"] for run in runs} == ids
        assert [run["created_at"] for run in runs] == sorted(run["created_at"] for run in runs)
