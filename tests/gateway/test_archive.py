"""Over HTTP nobody can tell whether a thread is in Redis or in SQL."""

import asyncio
from dataclasses import replace

import pytest

from gateway.stream.entries import Position
from gateway.stream.ws import CloseCode
from shared.db.engine import Database
from shared.errors import AppError, ErrorCode
from shared.threads.attempt import Change
from shared.threads.steps import StepRecord
from shared.types import RunStatus, StepStatus
from tests.gateway.house import House
from tests.gateway.support import events_in, frames_of, ids_in
from tests.gateway.websockets import websocket


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


async def test_a_flows_name_stands_for_its_thread_after_the_eviction_too(house: House) -> None:
    pair, client = {"flowUuid": "f", "flowInputUuid": "i"}, house.gateway.client
    thread_id = (await client.post("/api/agent/initiate", json=pair)).json()["thread_id"]
    await house.run(thread_id)
    await house.evict()
    again = await client.post("/api/agent/initiate", json=pair)
    assert again.status_code == 409
    assert thread_id in again.json()["detail"]
