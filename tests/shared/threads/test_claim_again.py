"""What a run's next attempt begins with: all of it, or what is new to a worker that knows an earlier one."""

from typing import Any

import pytest
from redis.asyncio import Redis

from shared.errors import AppError, ErrorCode
from shared.ids import new_run_id, new_thread_id
from shared.threads.attempt import Attempt, Change
from shared.threads.steps import Answer, StepRecord, Wait
from shared.threads.store import ThreadStore
from shared.threads.types import NewRun, NewThread
from shared.types import StepStatus, WaitKind


async def submitted(store: ThreadStore) -> str:
    thread = await store.create_thread(NewThread(new_thread_id(), "w"))
    run_id = new_run_id(thread.id)
    await store.submit(NewRun(run_id, "w", {}), queued={})
    return run_id


async def claim(store: ThreadStore, run_id: str, call: str, known: Attempt | None = None) -> Attempt:
    attempt = await store.claim(run_id, "worker", call, known=known)
    assert attempt is not None
    return attempt


def a_step(number: int, status: StepStatus = StepStatus.SUCCEEDED, wait: Wait | None = None) -> StepRecord:
    return StepRecord(f"step-{number}", number, "a step", "test", status, "h", result=number, wait=wait)


async def commit(attempt: Attempt, *steps: StepRecord) -> None:
    messages = [{"role": "user", "content": step.key} for step in steps]
    await attempt.commit(Change(steps=steps, messages=messages))


async def test_what_is_new_makes_what_is_known_whole_however_old_it_is(store: ThreadStore) -> None:
    run_id = await submitted(store)
    first = await claim(store, run_id, "one")
    question = a_step(2, StepStatus.WAITING_HUMAN, Wait(WaitKind.HUMAN))
    await commit(first, a_step(1), question, a_step(3, StepStatus.RUNNING))
    assert await first.wait([question]) == []
    await store.signal(run_id, question.key, Answer(StepStatus.SUCCEEDED, "yes"), [WaitKind.HUMAN])
    second = await claim(store, run_id, "two")
    await commit(second, a_step(3), a_step(4))
    await second.give_back("drain")
    third = await claim(store, run_id, "three", known=first)
    whole = {step.key: step for step in await store.journal(run_id)}
    assert (len(whole), whole["step-2"].result) == (4, "yes")
    assert third.journal == whole
    assert third.messages == await store.messages(third.run.thread_id)
    assert third.size > first.size
    await commit(third, a_step(5))
    await third.give_back("drain")
    fourth = await claim(store, run_id, "four", known=third)
    assert fourth.journal == {**whole, "step-5": a_step(5)}
    assert len(fourth.messages) == 6


async def test_of_two_copies_for_one_run_the_first_is_taken_and_the_other_goes_by_itself(
    store: ThreadStore, redis_client: Redis
) -> None:
    run_id = await submitted(store)
    await (await claim(store, run_id, "one")).give_back("drain")
    new_id = new_run_id(run_id.partition(".")[0])
    copies = [await store.copies.make([a_step(1), a_step(2)], new_id) for _ in range(2)]
    for copy in copies:
        await store.submit(NewRun(new_id, "w", {}, steps=copy), queued={})
    assert [step.key for step in await store.journal(new_id)] == ["step-1", "step-2"]
    assert await store.step(new_id, 2) == a_step(2)
    left = [key async for key in redis_client.scan_iter("*:copy:*")]
    assert len(left) == 2
    assert all([0 < await redis_client.ttl(key) <= 3600 for key in left])
    assert await redis_client.ttl(f"thread:{{{run_id.partition('.')[0]}}}:run:{new_id}:journal") == -1
    assert await store.copies.make([a_step(1)], new_id) is None


@pytest.mark.parametrize("part", ["journal", "index"])
async def test_copied_steps_that_are_not_whole_any_more_are_refused(
    store: ThreadStore, redis_client: Redis, part: str
) -> None:
    run_id = await submitted(store)
    new_id = new_run_id(run_id.partition(".")[0])
    copy = await store.copies.make([a_step(1), a_step(2)], new_id)
    assert copy is not None
    client: Any = redis_client
    await (client.hdel(copy.journal, "step-1") if part == "journal" else client.zrem(copy.index, "step-1"))
    with pytest.raises(AppError, match="more than an hour") as caught:
        await store.submit(NewRun(new_id, "w", {}, steps=copy), queued={})
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert await store.run(new_id) is None
