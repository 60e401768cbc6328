"""The client against a real gateway, over real HTTP."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.config import StreamSettings
from tests.gateway.support import BRIEF, KEY, Gateway, delta, finish, serving, settings_for
from tests.support.cutting import cutting
from tests.support.proxy import Proxy
from tests.support.waiting import until
from tests.trunkline.worker import ANSWER, Worker
from trunkline import (
    AsyncEventStream,
    AsyncTrunkline,
    Conflict,
    ConnectionLost,
    Event,
    NotFound,
    Run,
    RunFailed,
    Trunkline,
    Unauthorized,
)

CUTS = [777, 1, 60, 200, 290, 291, 292, 500, 1000, 1600, 2400, 0, 3333]
"""Bytes of a connection. The first one is enough to learn how soon to come back."""
QUICK = StreamSettings(retry_ms=1)
DELTAS = 40


async def test_a_task_is_executed_and_waited_for(trunkline: AsyncTrunkline, worker: Worker) -> None:
    thread = await trunkline.threads.initiate(metadata={"customer": "c-1"})
    told: list[Event] = []
    waiting = asyncio.create_task(
        trunkline.threads.execute_and_wait(thread.id, "Sing", user_uuid="u", on_event=told.append)
    )
    run = await _first_run(trunkline, thread.id)
    await worker.work(run.id)
    run = (await waiting).raise_for_status()
    assert (run.status, run.output, run.user_uuid, run.ended) == ("succeeded", ANSWER, "u", True)
    assert run.ended_at is not None
    assert run.ended_at >= run.created_at
    assert [told[0].type, told[-1].type] == ["run.queued", "run.completed"]
    assert [message.role async for message in trunkline.threads.messages(thread.id)] == ["user", "assistant"]
    assert [step.status async for step in trunkline.runs.steps(run.id)] == ["succeeded"]
    assert [event.id async for event in trunkline.runs.events(run.id)] == [event.id for event in told]
    assert (await trunkline.threads.get(thread.id)).metadata == {"customer": "c-1"}


async def _first_run(trunkline: AsyncTrunkline, thread_id: str) -> Run:
    async with asyncio.timeout(10):
        while True:
            async for run in trunkline.threads.runs(thread_id):
                return run
            await asyncio.sleep(0.01)


@pytest.fixture
async def quick(redis_url: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    """Whose clients come back soon."""
    async with serving(settings_for(redis_url, tmp_path, stream=QUICK)) as gateway:
        yield gateway


async def test_what_is_cut_anywhere_is_whole_for_async_readers(quick: Gateway) -> None:
    thread_id = await quick.thread()
    run_id = await quick.execute(thread_id)
    async with cutting(quick.port, CUTS) as port, AsyncTrunkline(f"http://127.0.0.1:{port}", KEY) as client:
        events = client.runs.follow(run_id)
        reading = asyncio.create_task(_all(events))
        await finish(await quick.attempt(run_id), DELTAS)
        told = await asyncio.wait_for(reading, 60)
    await _is_all(quick, run_id, told)


async def test_what_is_cut_anywhere_is_whole_for_blocking_readers(quick: Gateway) -> None:
    thread_id = await quick.thread()
    run_id = await quick.finished_run(thread_id, DELTAS)

    def read(port: int) -> list[Event]:
        with Trunkline(f"http://127.0.0.1:{port}", KEY) as client:
            return list(client.threads.stream(thread_id, run_id=run_id))

    async with cutting(quick.port, CUTS) as port:
        told = await asyncio.to_thread(read, port)
    await _is_all(quick, run_id, told)


async def _all(events: AsyncEventStream) -> list[Event]:
    return [event async for event in events]


async def _is_all(gateway: Gateway, run_id: str, told: list[Event]) -> None:
    answer = await gateway.client.get(f"/api/runs/{run_id}/events?limit=200")
    assert [event.to_json() for event in told] == answer.json()["items"]
    assert len(told) > DELTAS


async def test_an_agents_words_come_piece_by_piece(trunkline: AsyncTrunkline, gateway: Gateway) -> None:
    run_id = await gateway.finished_run(await gateway.thread(), 3)
    assert [piece.text async for piece in trunkline.runs.deltas(run_id)] == ["t00000 ", "t00001 ", "t00002 "]


async def test_a_stream_that_is_cut_for_good_raises_and_can_be_resumed(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id)
    attempt = await gateway.attempt(run_id)
    proxy = Proxy(gateway.port)
    await proxy.start()
    try:
        async with AsyncTrunkline(f"http://127.0.0.1:{proxy.port}", KEY) as client:
            async with client.runs.follow(run_id, patience_seconds=0.2) as events:
                assert [(await anext(events)).type for _ in range(2)] == ["run.queued", "run.started"]
                await proxy.set("refuse")
                with pytest.raises(ConnectionLost) as lost:
                    await anext(events)
            await proxy.set("pass")
            await finish(attempt)
            rest = [event.type async for event in client.runs.follow(run_id, last_id=lost.value.last_id)]
            assert rest == ["run.completed"]
    finally:
        await proxy.stop()


async def test_a_stream_that_times_out_goes_on_unseen(redis_url: str, tmp_path: Path) -> None:
    settings = settings_for(redis_url, tmp_path, stream=BRIEF.model_copy(update={"retry_ms": 1}))
    drops: list[str] = []
    async with serving(settings) as gateway, AsyncTrunkline(f"http://127.0.0.1:{gateway.port}", KEY) as client:
        thread_id = await gateway.thread()
        attempt = await gateway.attempt(await gateway.execute(thread_id))
        async with client.threads.stream(thread_id, on_drop=drops.append) as events:
            assert [(await anext(events)).type for _ in range(2)] == ["run.queued", "run.started"]
            later = asyncio.create_task(anext(events))
            await until(lambda: len(drops) >= 2)
            await attempt.emit([delta("late")])
            assert (await later).data == {"text": "late"}
    assert all("idle or open for too long" in drop for drop in drops)


async def test_a_human_is_asked_and_answers_once(trunkline: AsyncTrunkline, worker: Worker) -> None:
    run = await trunkline.runs.create(runnable_type="function", runnable_id="ask", input="really?")
    await worker.work(run.id)
    [step] = [step async for step in trunkline.approvals.list()]
    assert step.wait is not None
    assert (step.run_id, step.wait.kind, step.wait.request) == (run.id, "human", {"question": "really?"})
    assert (await trunkline.steps.human_complete(step.id, {"approved": True})).status == "succeeded"
    with pytest.raises(Conflict):
        await trunkline.steps.human_complete(step.id, {"approved": False})
    with pytest.raises(Conflict):
        await trunkline.steps.resolve(step.id, "done")
    await worker.work(run.id)
    assert (await trunkline.runs.wait(run.id)).output == {"approved": True}


async def test_an_event_wakes_who_waits_for_it(trunkline: AsyncTrunkline, worker: Worker) -> None:
    run = await trunkline.runs.create(runnable_type="function", runnable_id="pause", input="order-7")
    await worker.work(run.id)
    published = await trunkline.events.publish("go", {"paid": 12}, key="order-7")
    assert (published.name, published.key) == ("go", "order-7")
    await worker.work(run.id)
    assert (await trunkline.runs.get(run.id)).output == {"paid": 12}


async def test_a_failed_run_is_an_exception_for_who_asks_and_can_be_retried(
    trunkline: AsyncTrunkline, worker: Worker
) -> None:
    run = await trunkline.runs.create(runnable_type="function", runnable_id="fall")
    await worker.work(run.id)
    failed = await trunkline.runs.wait(run.id)
    with pytest.raises(RunFailed, match="It fell"):
        failed.raise_for_status()
    again = await trunkline.runs.retry(run.id)
    await worker.work(again.id)
    assert ((await trunkline.runs.get(again.id)).output, again.retried_from) == ("It stands.", run.id)


async def test_threads_are_forked_messaged_and_canceled(trunkline: AsyncTrunkline, gateway: Gateway) -> None:
    thread = await trunkline.threads.initiate()
    run = await trunkline.threads.execute(thread.id, "Sing", idempotency_key="once")
    assert (await trunkline.threads.execute(thread.id, "Sing", idempotency_key="once")).id == run.id
    accepted = await trunkline.threads.message(thread.id, "Louder.")
    assert accepted.run_id == run.id
    [canceled] = await trunkline.threads.cancel(thread.id)
    assert (canceled.id, canceled.status) == (run.id, "canceled")
    with pytest.raises(Conflict):
        await trunkline.threads.message(thread.id, "Too late.")
    fork = await trunkline.threads.fork(thread.id)
    assert {each.id async for each in trunkline.threads.list()} == {fork.id, thread.id}
    assert (await trunkline.threads.link(thread.id, 8080)).url.startswith("http://8080-")
    await trunkline.threads.end_links(thread.id, 8080)


async def test_who_has_no_key_or_asks_for_what_is_not_there_is_told(gateway: Gateway) -> None:
    async with AsyncTrunkline(f"http://127.0.0.1:{gateway.port}", "wrong") as client:
        assert (await client.health()).status == "degraded"
        with pytest.raises(Unauthorized):
            await client.threads.get("x")
        with pytest.raises(Unauthorized):
            await anext(client.threads.stream("x"))
    async with AsyncTrunkline(f"http://127.0.0.1:{gateway.port}", KEY) as client:
        with pytest.raises(NotFound):
            await anext(client.runs.follow("x"))
        assert [tool async for tool in client.tools.list()] == []
