"""Lists and sums over what is in Redis and what is in SQL."""

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from shared.history import lists
from shared.ids import SHARDS
from shared.threads.attempt import Change
from shared.types import RunStatus
from tests.gateway.house import House
from tests.gateway.support import Gateway, finish


async def test_runs_are_listed_by_what_is_asked_wherever_they_are(house: House) -> None:
    thread_id, other = await house.gateway.thread(), await house.gateway.thread()
    old = await house.run(thread_id)
    patched = await house.gateway.client.patch(f"/api/runs/{old}", json={"labels": {"a": "1"}, "name": "Old"})
    assert patched.json()["labels"] == {"a": "1"}
    await house.archive()
    new, there = await house.run(thread_id), await house.gateway.execute(other)

    async def ids(query: str) -> list[str]:
        return [item["run_id"] for item in (await house.get(f"/runs?{query}"))["items"]]

    assert await ids("") == [there, new, old]
    assert await ids("status=succeeded") == [new, old]
    assert await ids("status=pending") == [there]
    assert await ids(f"thread_id={thread_id}") == [new, old]
    assert await ids("label=a:1") == [old]
    assert await ids("label=a:2") == []
    assert await ids("runnable_type=function") == []
    created = (await house.get(f"/runs/{new}"))["created_at"]
    assert await ids(f"created_before={created}") == [old]
    assert await ids(f"created_after={created}") == [there, new]
    page = await house.get("/runs?limit=2")
    assert await ids(f"limit=2&cursor={page['next_cursor']}") == [old]
    await house.archiver.tick(range(SHARDS))
    assert await ids("") == [there, new, old]


async def test_the_list_at_the_root_has_live_and_archived_runs_by_what_they_run_and_for_whom(house: House) -> None:
    client, function = house.gateway.client, {"runnable_type": "function", "runnable_id": "f"}
    archived, live = [
        (await client.post("/runs", json={**function, "input": {"n": name}})).json()["run_id"]
        for name in ("archived", "live")
    ]
    other = (await client.post("/runs", json={"input": {"task": "x"}, "user_uuid": "ann"})).json()["run_id"]
    attempt = await house.gateway.attempt(archived)
    await finish(attempt)
    await house.archive()

    async def ids(**params: str) -> list[str]:
        answer = await client.get("/runs/", params=params)
        assert answer.status_code == 200, answer.text
        return [item["run_id"] for item in answer.json()["items"]]

    assert await ids() == [other, live, archived]
    assert await ids(**function) == await ids(runnable_id="f") == [live, archived]
    assert await ids(**function, status="COMPLETED") == [archived]
    assert await ids(runnable_type="agent") == await ids(user_uuid="ann") == [other]
    for nothing in ("agent_id", "team_id", "workflow_id", "task_id", "thread_id", "project_id"):
        assert await ids(**{nothing: "f"}) == [], nothing


@pytest.mark.parametrize(
    "query", ["agent_id=a&team_id=a", "agent_id=a&runnable_type=function", "workflow_id=a&runnable_id=b"]
)
async def test_runs_of_two_things_at_once_are_none_and_whoever_asks_is_told(gateway: Gateway, query: str) -> None:
    answer = await gateway.client.get(f"/runs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert (await gateway.client.get("/runs?agent_id=a&runnable_type=agent&runnable_id=a")).status_code == 200


async def test_a_list_reads_the_newest_runs_of_redis_only_however_many_go_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread_id = await house.gateway.thread()
    oldest, *newest = [await house.gateway.execute(thread_id) for _ in range(3)]
    await house.archive()
    store, read = house.gateway.app.state.services.store, list[str]()
    runs = store.runs

    async def noted(run_ids: Sequence[str]) -> Any:
        read.extend(run_ids)
        return await runs(run_ids)

    monkeypatch.setattr(store, "runs", noted)
    monkeypatch.setattr(lists, "MOST_CURRENT", 2)
    assert [item["run_id"] for item in (await house.get("/runs"))["items"]] == [*reversed(newest), oldest]
    assert read == [*reversed(newest)]


async def test_usage_is_summed_up_by_what_is_asked(house: House) -> None:
    thread_id = await house.gateway.thread()
    for model, cost in (("m1", 0.5), ("m1", 0.25), ("m2", None)):
        attempt = await house.gateway.attempt(await house.gateway.execute(thread_id))
        usage = orjson.dumps({"input_tokens": 10, "output_tokens": 2, "cost": cost})
        await attempt.commit(Change(run={"usage": usage, "model": model}))
        await attempt.end(RunStatus.SUCCEEDED, {}, {})
    await house.evict()
    days = await house.get("/usage")  # two, where midnight was between the runs
    names = ("runs", "input_tokens", "output_tokens", "cost")
    assert [sum(day[name] for day in days) for name in names] == [3, 30, 6, 0.75]
    created = {run["created_at"][:10] for run in (await house.get("/runs"))["items"]}
    assert sorted(day["day"] for day in days) == sorted(created)
    by_model = await house.get("/usage?by=model&by=runnable_type")
    assert [(row["model"], row["runnable_type"], row["cost"]) for row in by_model] == [
        *(("m1", "agent", 0.75), ("m2", "agent", 0.0)),
    ]
    assert await house.get("/usage?agent_id=other") == []
