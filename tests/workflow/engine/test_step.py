import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

from shared.errors import AppError, ErrorCode
from shared.events.outside import Outside
from shared.ids import new_run_id, new_thread_id
from shared.redis import connect
from shared.tasks import cancel
from shared.threads.attempt import Attempt, Fenced
from shared.threads.brief import EVENT_BYTES
from shared.threads.types import NewRun, NewThread
from tests.workflow.support import outside
from workflow.engine.coalesce import PIECE_CHARS, Coalescer
from workflow.engine.step import Step, StepFailed


@pytest.fixture
async def out(redis_url: str) -> AsyncIterator[Outside]:
    client = connect(redis_url, timeout_seconds=5, max_connections=10)
    yield outside(client)
    await client.aclose()


@pytest.fixture
async def run_id(out: Outside) -> str:
    thread = await out.store.create_thread(NewThread(new_thread_id(), "w"))
    run_id = new_run_id(thread.id)
    await out.store.submit(NewRun(run_id, "w", {"task": "x"}), queued={})
    return run_id


async def claim(out: Outside, run_id: str, worker: str) -> Attempt:
    attempt = await out.store.claim(run_id, worker, secrets.token_hex(4))
    assert attempt is not None
    return attempt


async def resumed(out: Outside, run_id: str) -> Step:
    """The run as the next worker has it."""
    await out.store.expire(run_id, "w1", max_attempts=9)
    return Step(await claim(out, run_id, "w2"), asyncio.Event(), out)


def counted() -> tuple[Callable[[], Any], list[int]]:
    calls: list[int] = []

    async def fn() -> dict[str, int]:
        calls.append(1)
        return {"call": len(calls)}

    return fn, calls


async def test_a_finished_step_is_not_done_again_by_the_next_attempt(out: Outside, run_id: str) -> None:
    fn, calls = counted()
    step = Step(await claim(out, run_id, "w1"), asyncio.Event(), out)
    assert await step.do("charge", fn) == {"call": 1}
    assert await (await resumed(out, run_id)).do("charge", fn) == {"call": 1}
    assert len(calls) == 1


async def test_a_name_used_in_a_loop_is_a_step_each_time(out: Outside, run_id: str) -> None:
    fn, calls = counted()
    step = Step(await claim(out, run_id, "w1"), asyncio.Event(), out)
    assert [(await step.do("poll", fn))["call"] for _ in range(3)] == [1, 2, 3]
    again = await resumed(out, run_id)
    assert [(await again.do("poll", fn))["call"] for _ in range(4)] == [1, 2, 3, 4]
    assert len(calls) == 4


async def test_a_step_that_failed_fails_the_same_way_on_replay(out: Outside, run_id: str) -> None:
    calls = []

    async def refuse() -> None:
        calls.append(1)
        raise AppError(ErrorCode.MODEL_AUTH, "The key is wrong.")

    step = Step(await claim(out, run_id, "w1"), asyncio.Event(), out)
    with pytest.raises(AppError):
        await step.do("ask", refuse)
    again = await resumed(out, run_id)
    with pytest.raises(StepFailed, match=r"The key is wrong\.") as caught:
        await again.do("ask", refuse)
    assert caught.value.code is ErrorCode.MODEL_AUTH
    assert len(calls) == 1


async def test_replay_into_changed_code_is_refused(out: Outside, run_id: str) -> None:
    fn, _ = counted()
    step = Step(await claim(out, run_id, "w1"), asyncio.Event(), out)
    await step.do("charge", fn, input={"order": 7})
    again = await resumed(out, run_id)
    with pytest.raises(AppError) as caught:
        await again.do("charge", fn, input={"order": 8})
    assert caught.value.code is ErrorCode.REPLAY_MISMATCH


async def test_a_draining_worker_replays_but_starts_nothing_new(out: Outside, run_id: str) -> None:
    fn, calls = counted()
    attempt = await claim(out, run_id, "w1")
    await Step(attempt, asyncio.Event(), out).do("one", fn)
    await out.store.expire(run_id, "w1", max_attempts=9)
    draining = asyncio.Event()
    draining.set()
    step = Step(await claim(out, run_id, "w2"), draining, out)
    assert await step.do("one", fn) == {"call": 1}
    refused = asyncio.create_task(step.do("two", fn))
    await asyncio.wait_for(step.parking.idle.wait(), 5)
    assert len(calls) == 1
    await cancel([refused])


async def test_a_zombies_step_is_refused_and_its_result_lost(out: Outside, run_id: str) -> None:
    fn, _ = counted()
    zombie = Step(await claim(out, run_id, "w1"), asyncio.Event(), out)
    alive = await resumed(out, run_id)
    with pytest.raises(Fenced):
        await zombie.do("charge", fn)
    assert await alive.do("charge", fn) == {"call": 1}


async def test_what_a_coalescer_cannot_send_is_raised_where_text_is_added() -> None:
    async def fail(_: Any) -> None:
        raise Fenced("over")

    async with Coalescer(fail, lambda label, text: (label, {"text": text}), 0) as stream:
        stream.add("agent.delta", "first")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(Fenced):
            stream.add("agent.delta", "second")


async def test_a_coalescer_keeps_order_and_loses_nothing_between_its_last_send_and_the_rest() -> None:
    sent: list[tuple[str, dict[str, Any]]] = []

    async def emit(events: Any) -> None:
        await asyncio.sleep(0.001)
        sent.extend(events)

    async with Coalescer(emit, lambda label, text: (label, {"text": text}), 0.002) as stream:
        for i in range(200):
            stream.add("agent.delta" if i % 50 < 40 else "agent.thinking", f"{i} ")
            await asyncio.sleep(0)
        sent.extend(await stream.rest())
    assert "".join(data["text"] for _, data in sent) == "".join(f"{i} " for i in range(200))


async def test_a_flood_of_text_becomes_several_events_none_of_which_is_cut() -> None:
    sent: list[tuple[str, Any]] = []

    async def emit(events: Any) -> None:
        sent.extend(events)

    text = "\x01" * (3 * PIECE_CHARS + 1)
    async with Coalescer(emit, lambda label, text: (label, {"text": text}), 0) as stream:
        stream.add("output", text)
        sent += await stream.rest()
    assert "".join(data["text"] for _, data in sent) == text
    assert len(sent) == 4
    assert max(len(orjson.dumps(data)) for _, data in sent) < EVENT_BYTES
