"""What is deleted, or too old, is nowhere any more."""

import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import select, update

from modem.retention import Retention
from shared import keys
from shared.db.tables.archive import blobs, runs, threads
from shared.threads.attempt import Change
from shared.threads.steps import StepRecord
from shared.types import RunStatus, StepStatus
from tests.gateway.house import House


async def test_a_run_that_never_came_to_be_is_looked_for_no_more(house: House) -> None:
    run_id = f"{await house.gateway.thread()}.{'0' * 15}"
    name = keys.current_runs("default")
    await house.gateway.redis.zadd(name, {run_id: 0})
    assert (await house.get("/runs"))["items"] == []
    assert await house.gateway.redis.exists(name) == 0


async def test_a_deleted_run_is_nowhere(house: House) -> None:
    thread_id = await house.gateway.thread()
    first, second = await house.run(thread_id), await house.run(thread_id)
    await house.archive()
    client = house.gateway.client
    pending = await house.gateway.execute(thread_id)
    assert (await client.delete(f"/api/runs/{pending}")).status_code == 409
    assert (await client.delete(f"/api/runs/{first}")).status_code == 204
    for _ in range(2):
        for path in ("", "/steps", "/events"):
            assert (await client.get(f"/api/runs/{first}{path}")).status_code == 404
        assert [item["run_id"] for item in (await house.get("/runs"))["items"]] == [pending, second]
        await house.archive()
    async with house.gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
        frames = await stream.frames(10)
    assert first not in {frame.data.get("run_id") for frame in frames if frame.id}


async def test_a_deleted_thread_is_nowhere_and_does_not_come_back(house: House) -> None:
    client, thread_id = house.gateway.client, await house.gateway.thread()
    run_id = await house.run(thread_id, size=100_000)
    await house.evict()
    waiting = await house.gateway.execute(thread_id)
    assert (await client.delete(f"/api/agent/{thread_id}")).status_code == 409
    await client.post(f"/api/runs/{waiting}/cancel")
    assert (await client.delete(f"/api/agent/{thread_id}")).status_code == 204
    for _ in range(2):
        for path in (f"/agent/{thread_id}", f"/runs/{run_id}", f"/agent/{thread_id}/stream", f"/runs/{waiting}"):
            assert (await client.get(f"/api{path}")).status_code == 404
        assert (await client.post(f"/api/agent/{thread_id}/execute", json={"task": "t"})).status_code == 404
        assert (await house.get("/agent"))["items"] == []
        assert (await house.get("/runs"))["items"] == []
        await house.archive()


async def test_a_project_is_not_deleted_before_its_threads_wherever_they_are(house: House) -> None:
    client = house.gateway.client
    project = (await client.post("/api/projects", json={"name": "P"})).json()["id"]
    threads = [
        (await client.post("/api/agent/initiate", json={"project_id": project})).json()["thread_id"] for _ in range(2)
    ]
    for change in (house.archive, house.evict):
        await change()
        refused = await client.delete(f"/api/projects/{project}")
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    for thread_id in threads:
        assert (await client.delete(f"/api/agent/{thread_id}")).status_code == 204
    assert (await client.delete(f"/api/projects/{project}")).status_code == 204


async def test_a_workspace_is_not_deleted_before_its_threads_wherever_they_are(house: House) -> None:
    client = house.gateway.client
    workspace = (await client.post("/api/workspaces", json={"slug": "w", "name": "W"})).json()["id"]
    await client.post("/api/agent/initiate", headers={"x-workspace-id": workspace})
    await house.evict()
    assert (await client.delete(f"/api/workspaces/{workspace}")).status_code == 409


async def test_what_is_too_old_is_deleted_and_readers_are_told_of_the_gap(house: House) -> None:
    thread_id = await house.gateway.thread()
    old = await house.run(thread_id)
    gone = await house.gateway.thread()
    await house.evict()
    services = house.gateway.app.state.services
    retention = Retention(10, services.db, services.changes, services.workers)
    await retention.tick(time.time())
    assert len((await house.get("/agent"))["items"]) == 2
    new, long_ago = await house.run(thread_id), datetime.now(UTC) - timedelta(days=11)
    async with services.db.begin() as c:
        await c.execute(update(runs).where(runs.c.id == old).values(ended_at=long_ago))
        silent = {"created_at": long_ago, "last_ms": int(long_ago.timestamp() * 1000)}
        await c.execute(update(threads).where(threads.c.id == gone).values(**silent))
    await retention.tick(time.time())
    await house.archive()
    assert [item["thread_id"] for item in (await house.get("/agent"))["items"]] == [thread_id]
    assert (await house.gateway.client.get(f"/api/agent/{gone}")).status_code == 404
    assert [item["run_id"] for item in (await house.get("/runs"))["items"]] == [new]
    async with house.gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
        frames = await stream.frames(10)
    assert frames[0].event == "gap"
    assert {frame.data["run_id"] for frame in frames[1:]} == {new}
    assert len((await house.get(f"/agent/{thread_id}/messages"))["items"]) == 6
    assert (await house.gateway.client.get(f"/api/runs/{old}")).status_code == 404


async def test_what_is_too_old_does_not_come_back_into_redis_to_be_deleted(house: House) -> None:
    thread_id = await house.gateway.thread()
    old = await house.run(thread_id, size=100_000)
    failed = await house.gateway.attempt(retried := await house.gateway.execute(thread_id, "x" * 70_000))
    await failed.end(RunStatus.FAILED, {}, {"error": {"code": "c", "detail": "d"}})
    new = (await house.gateway.client.post(f"/api/runs/{retried}/retry")).json()["run_id"]
    await (await house.gateway.attempt(new)).end(RunStatus.SUCCEEDED, {}, {})
    await house.evict()
    services, long_ago = house.gateway.app.state.services, datetime.now(UTC) - timedelta(days=11)
    async with services.db.begin() as c:
        await c.execute(update(runs).where(runs.c.id.in_([old, retried])).values(ended_at=long_ago))
    await Retention(10, services.db, services.changes, services.workers).tick(time.time())
    assert [key async for key in house.gateway.redis.scan_iter("thread:*")] == []
    assert [item["run_id"] for item in (await house.get("/runs"))["items"]] == [new]
    assert (await house.gateway.client.get(f"/api/runs/{old}")).status_code == 404
    async with services.db.connect() as c:
        kept = {row.name for row in await c.execute(select(blobs.c.name))}
    run = await house.get(f"/runs/{new}")
    assert len(run["input"]["task"]) == 70_000
    assert len(kept) == 1, "the input, which the retry names too"


async def test_what_a_retry_names_too_outlives_the_run_before_it(house: House) -> None:
    client, thread_id = house.gateway.client, await house.gateway.thread()
    attempt = await house.gateway.attempt(run_id := await house.gateway.execute(thread_id, "x" * 70_000))
    step = StepRecord("k1", 1, "k", "t", StepStatus.SUCCEEDED, "h", result="r" * 70_000)
    await attempt.commit(Change([step]))
    await attempt.end(RunStatus.FAILED, {}, {"error": {"code": "c", "detail": "d"}, "culprits": ["other"]})
    retry = (await client.post(f"/api/runs/{run_id}/retry")).json()["run_id"]
    await (await house.gateway.attempt(retry)).end(RunStatus.SUCCEEDED, {}, {"output": "y" * 70_000})
    assert (await client.delete(f"/api/runs/{run_id}")).status_code == 204
    assert await house.clean() == 1  # its input; the retry has one of its own
    await house.evict()
    assert (await house.get(f"/steps/{retry}.1"))["output"] == "r" * 70_000
    assert (await client.delete(f"/api/runs/{retry}")).status_code == 204
    assert await house.clean() == 3
