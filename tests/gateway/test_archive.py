"""Over HTTP nobody can tell whether a thread is in Redis or in SQL."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import select, update

from gateway.stream.entries import Position
from gateway.stream.ws import CloseCode
from modem.archive import Archiver
from modem.retention import Retention
from shared import keys
from shared.config import ArchiveSettings, DatabaseSettings
from shared.db.engine import Database
from shared.db.tables.archive import blobs, runs, threads
from shared.errors import AppError, ErrorCode
from shared.history import lists
from shared.ids import SHARDS
from shared.payloads.payloads import Payloads
from shared.threads.archiving import Archiving
from shared.threads.attempt import Change
from shared.threads.steps import StepRecord
from shared.threads.types import NewEvent
from shared.types import RunStatus, StepStatus
from shared.workers.registry import WorkerRegistry
from tests.gateway.support import Gateway, delta, events_in, finish, frames_of, ids_in, serving, settings_for
from tests.gateway.websockets import websocket

SECTIONS: dict[str, Any] = {"keep_events_seconds": 0.0, "every_seconds": 1, "retention_days": 0}


@dataclass
class House:
    gateway: Gateway
    archiver: Archiver
    evictor: Archiver

    async def archive(self) -> None:
        await self.archiver.tick(range(SHARDS))

    async def evict(self) -> None:
        await self.evictor.tick(range(SHARDS))
        assert [key async for key in self.gateway.redis.scan_iter("thread:*")] == []

    async def clean(self) -> int:
        """Deletes what nobody names any more; how many blobs that was."""
        redis, payloads = self.gateway.redis, self.gateway.store.payloads
        names = [name async for name in redis.scan_iter("timers:*")]
        timers = [str(timer) for name in names for timer in await redis.zrange(name, 0, -1)]
        gone = [timer for timer in timers if timer.startswith("gone|")]
        for timer in gone:
            await payloads.clean(timer)
        return len(gone)

    async def get(self, path: str) -> Any:
        answer = await self.gateway.client.get(f"/api{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def run(self, thread_id: str, size: int = 1) -> str:
        run_id = await self.gateway.execute(thread_id, "x" * size)
        attempt = await self.gateway.attempt(run_id)
        for number in range(1, 4):
            step = StepRecord(f"k{number}", number, "k", "t", StepStatus.SUCCEEDED, "h", result="r" * size)
            message = {"role": "assistant", "content": str(number)}
            await attempt.emit([delta(f"{number}")])
            await attempt.commit(Change([step], [message], [NewEvent("step.completed", {"key": step.key}, number)]))
        await attempt.end(RunStatus.SUCCEEDED, {"output": "o"}, {"output": "o" * size})
        return run_id


@pytest.fixture
async def house(client: Redis, redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    settings = settings_for(redis_url, tmp_path, database=DatabaseSettings(url=SecretStr(database_url)))
    database = Database(database_url)
    payloads = Payloads.over(client, settings, patience_seconds=2)
    archiving = Archiving(client, patience_seconds=2)
    archiver, evictor = (
        Archiver(
            ArchiveSettings.model_construct(**SECTIONS, evict_after_seconds=seconds),
            database,
            payloads,
            archiving,
            WorkerRegistry(client),
        )
        for seconds in (3600, -1)
    )
    async with serving(settings) as gateway:
        yield House(gateway, archiver, evictor)
    await database.close()


async def test_a_thread_reads_the_same_live_archived_and_evicted(house: House) -> None:
    thread_id = await house.gateway.thread()
    run_id = await house.run(thread_id, size=100_000)
    paths = [f"/agent/{thread_id}", f"/agent/{thread_id}/messages", f"/agent/{thread_id}/runs", "/agent", "/runs"]
    paths += [f"/runs/{run_id}", f"/runs/{run_id}/steps", f"/runs/{run_id}/events", f"/steps/{run_id}.2"]
    paths += [f"/runs/{run_id}/events?limit=3", f"/runs/{run_id}/steps?limit=2", f"/runs/{run_id}/logs"]
    streams = [f"/api/agent/{thread_id}/stream?run_id={run_id}"]
    live = [await house.get(path) for path in paths]
    followed = [events_in(await house.gateway.body_of(path)) for path in streams]
    for change in (house.archive, house.evict):
        await change()
        assert [await house.get(path) for path in paths] == live
        assert [events_in(await house.gateway.body_of(path)) for path in streams] == followed


async def test_steps_show_their_inputs_times_and_parents_wherever_they_are(house: House) -> None:
    run_id = await house.gateway.execute(await house.gateway.thread())
    attempt = await house.gateway.attempt(run_id)
    call = {"id": "c", "name": "bash", "arguments": "x" * 100_000}
    asked = StepRecord("llm:1", 1, "llm", "llm", StepStatus.SUCCEEDED, "h", result={"tool_calls": [call]})
    made = StepRecord("tool:c", 2, "bash", "tool", StepStatus.RUNNING, "h", parents=[1])
    given = StepRecord("f", 3, "f", "function", StepStatus.SUCCEEDED, "h", duration_ms=5, input="y" * 100_000)
    for step in (asked, made, replace(made, status=StepStatus.SUCCEEDED), given):
        await attempt.commit(Change([step]))
    await attempt.end(RunStatus.SUCCEEDED, {}, {})
    paths = [
        f"/runs/{run_id}/steps",
        f"/runs/{run_id}/steps?limit=1&cursor=1",
        f"/steps/{run_id}.2",
        f"/steps/{run_id}.3",
    ]
    live = [await house.get(path) for path in paths]
    assert (live[2]["input"]["arguments"], live[3]["input"]) == ("x" * 100_000, "y" * 100_000)
    assert live[2]["parents"] == [f"{run_id}.1"]
    assert all(step["started_at"] <= step["ended_at"] for step in live[2:])
    for change in (house.archive, house.evict):
        await change()
        assert [await house.get(path) for path in paths] == live


async def test_a_stream_resumes_after_every_id_wherever_its_events_are(house: House) -> None:
    thread_id = await house.gateway.thread()
    first = await house.run(thread_id)
    await house.evict()
    second = await house.run(thread_id)  # the first one's events are in SQL only
    await house.archive()
    attempt = await house.gateway.attempt(third := await house.gateway.execute(thread_id))
    await attempt.end(RunStatus.SUCCEEDED, {}, {})  # and of this one in Redis only
    ids = []
    for run_id in (first, second, third):
        ids += ids_in(await house.gateway.body_of(f"/api/runs/{run_id}/events", {"accept": "text/event-stream"}))
    assert len(ids) == 9 + 9 + 3
    path = f"/api/agent/{thread_id}/stream?run_id={third}"
    assert ids_in(await house.gateway.body_of(path)) == ids[-3:]
    for place, last_id in enumerate(ids[:-1]):
        headers = {"last-event-id": last_id}
        async with house.gateway.stream(f"/api/agent/{thread_id}/stream", headers) as stream:
            frames = await stream.frames(len(ids) - place - 1)
            assert [frame.id for frame in frames] == ids[place + 1 :]


async def test_who_follows_an_evicted_thread_gets_what_happens_next_in_it(house: House) -> None:
    thread_id = await house.gateway.thread()
    await house.run(thread_id)
    await house.evict()
    async with house.gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
        old = await stream.frames(9)
        await house.run(thread_id)
        new = await stream.frames(9)
    ids = [frame.id for frame in [*old, *new]]
    assert None not in ids
    assert ids == sorted(ids, key=lambda event_id: tuple(map(int, str(event_id).split("-"))))
    assert len(set(ids)) == 18


async def test_an_evicted_run_can_be_retried_forked_and_canceled_as_if_it_were_there(house: House) -> None:
    client, thread_id = house.gateway.client, await house.gateway.thread()
    run_id = await house.run(thread_id)
    await house.evict()
    assert (await client.post(f"/api/runs/{run_id}/cancel")).json()["status"] == "succeeded"
    forked = await client.post(f"/api/runs/{run_id}/fork", json={"step_id": f"{run_id}.3"})
    assert forked.status_code == 201, forked.text
    assert len((await house.get(f"/runs/{forked.json()['run_id']}/steps"))["items"]) == 2
    thread = await client.post(f"/api/agent/{thread_id}/fork")
    assert len((await house.get(f"/agent/{thread.json()['thread_id']}/messages"))["items"]) == 3
    assert (await client.post(f"/api/runs/{run_id}/retry")).status_code == 409


async def test_a_request_sent_again_after_the_eviction_gets_the_same_answer(house: House) -> None:
    client, headers = house.gateway.client, {"Idempotency-Key": "k"}
    opened = await client.post("/api/agent/initiate", headers=headers)
    thread_id = opened.json()["thread_id"]
    path, headers = f"/api/agent/{thread_id}/execute", {"Idempotency-Key": "e"}
    executed = await client.post(path, json={"task": "t"}, headers=headers)
    await (await house.gateway.attempt(executed.json()["run_id"])).end(RunStatus.SUCCEEDED, {}, {})
    await house.evict()
    assert (await client.post(path, json={"task": "t"}, headers=headers)).json() == executed.json()
    assert len((await house.get(f"/agent/{thread_id}/runs"))["items"]) == 1


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


async def test_live_threads_are_followed_while_sql_does_not_say_where_evicted_ones_end(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await house.run(old := await house.gateway.thread())
    await house.evict()
    older, answer = house.gateway.app.state.services.streams.fanout.older, asyncio.Event()
    end = older.end

    async def slow(thread_id: str) -> Position | None:
        await answer.wait()
        found: Position | None = await end(thread_id)
        return found

    monkeypatch.setattr(older, "end", slow)
    live = await house.gateway.thread()
    async with (
        house.gateway.stream(f"/api/agent/{old}/stream") as waiting,
        house.gateway.stream(f"/api/agent/{live}/stream") as stream,
    ):
        await house.run(live)
        assert len(await stream.frames(9)) == 9
        answer.set()
        assert {frame.data["run_id"] for frame in await waiting.frames(9)} == {run_id}


async def test_a_socket_says_that_sql_is_away(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    thread_id = await house.gateway.thread()
    await house.run(thread_id)
    await house.evict()

    async def away(*_: object) -> None:
        raise AppError(ErrorCode.UNAVAILABLE, "SQL is away.")

    monkeypatch.setattr(house.gateway.app.state.services.streams.fanout.older, "page", away)
    async with websocket(house.gateway, f"/ws/agent/{thread_id}") as client:
        assert (await client.until(type="error"))["status"] == 503
        assert await client.close_code() == CloseCode.UNAVAILABLE


async def test_an_archived_thread_takes_no_runs_until_it_is_active_again(house: House) -> None:
    client, thread_id = house.gateway.client, await house.gateway.thread()
    await house.evict()
    patched = await client.patch(f"/api/agent/{thread_id}", json={"status": "archived", "name": "N"})
    assert (patched.json()["status"], patched.json()["name"]) == ("archived", "N")
    await house.evict()
    assert (await client.post(f"/api/agent/{thread_id}/execute", json={"task": "t"})).status_code == 409
    assert (await house.get("/agent?status=active"))["items"] == []
    assert len((await house.get("/agent?status=archived"))["items"]) == 1
    await client.patch(f"/api/agent/{thread_id}", json={"status": "active"})
    await house.gateway.execute(thread_id)


async def test_another_workspaces_threads_and_runs_do_not_exist_in_sql_either(house: House) -> None:
    thread_id = await house.gateway.thread()
    run_id = await house.run(thread_id)
    await house.evict()
    database = house.archiver._database
    async with database.begin() as c:
        for table in ("threads", "runs"):
            statement = f"UPDATE {table} SET workspace = 'x', record = replace(record, '\"default\"', '\"x\"')"
            await c.exec_driver_sql(statement)
    for path in (f"/agent/{thread_id}", f"/runs/{run_id}", f"/agent/{thread_id}/stream", f"/runs/{run_id}/events"):
        assert (await house.gateway.client.get(f"/api{path}")).status_code == 404
    stream = await house.gateway.client.get(f"/api/runs/{run_id}/events", headers={"accept": "text/event-stream"})
    assert stream.status_code == 404
    assert (await house.get("/runs"))["items"] == (await house.get("/agent"))["items"] == []


async def test_while_sql_is_away_live_threads_work_and_evicted_ones_say_503(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    client, old, live = house.gateway.client, await house.gateway.thread(), None
    run_id = await house.run(old)
    await house.evict()
    live = await house.gateway.thread()
    services = house.gateway.app.state.services
    engine, services.db.engine = services.db.engine, Database("postgresql+asyncpg://nobody@127.0.0.1:1/x").engine
    for path in (f"/agent/{old}", f"/runs/{run_id}"):
        answer = await client.get(f"/api{path}")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "does not answer: ConnectionRefusedError" in caplog.text, "the answer says that the log has the cause"
    assert (await client.post(f"/api/agent/{old}/execute", json={"task": "t"})).status_code == 503
    body = await house.gateway.body_of(f"/api/agent/{old}/stream")
    assert [frame.data.get("status") for frame in frames_of(body)] == [503]
    assert len((await house.get(f"/runs/{await house.run(live)}/events"))["items"]) == 9
    services.db.engine = engine
    await house.gateway.execute(old)


async def test_usage_is_summed_up_by_what_is_asked(house: House) -> None:
    thread_id = await house.gateway.thread()
    for model, cost in (("m1", 0.5), ("m1", 0.25), ("m2", None)):
        attempt = await house.gateway.attempt(await house.gateway.execute(thread_id))
        usage = orjson.dumps({"input_tokens": 10, "output_tokens": 2, "cost": cost})
        await attempt.commit(Change(run={"usage": usage, "model": model}))
        await attempt.end(RunStatus.SUCCEEDED, {}, {})
    await house.evict()
    [today] = await house.get("/usage")
    assert (today["runs"], today["input_tokens"], today["output_tokens"], today["cost"]) == (3, 30, 6, 0.75)
    assert today["day"] == (await house.get("/runs"))["items"][0]["created_at"][:10]
    by_model = await house.get("/usage?by=model&by=runnable_type")
    assert [(row["model"], row["runnable_type"], row["cost"]) for row in by_model] == [
        *(("m1", "agent", 0.75), ("m2", "agent", 0.0)),
    ]
    assert await house.get("/usage?agent_id=other") == []


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


async def test_a_flows_name_stands_for_its_thread_after_the_eviction_too(house: House) -> None:
    pair, client = {"flowUuid": "f", "flowInputUuid": "i"}, house.gateway.client
    thread_id = (await client.post("/api/agent/initiate", json=pair)).json()["thread_id"]
    await house.run(thread_id)
    await house.evict()
    again = await client.post("/api/agent/initiate", json=pair)
    assert again.status_code == 409
    assert thread_id in again.json()["detail"]
