"""What one run's data can do to the others: nothing."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from modem.agenda import POSTPONED_SECONDS, Agenda
from shared import keys
from shared.errors import ErrorCode
from shared.events.bus import Topic
from shared.ids import SHARDS, new_thread_id
from shared.keys import ThreadKeys, thread_keys_of
from shared.payloads.blobs import Ref
from shared.tasks import cancel
from shared.types import RunStatus
from tests.workflow.fleet import Fleet
from tests.workflow.support import Playbook, a_runtime, turn
from workflow.engine.step import Step
from workflow.runner import Runner, Signals

BOUND_SECONDS = 10
PUT_OFF = POSTPONED_SECONDS - 10


@pytest.fixture
def fleet(client: Redis) -> Fleet:
    return Fleet(client)


async def nap(step: Step, _: Any) -> None:
    await step.sleep(0.5)


async def wait(step: Step, _: Any) -> Any:
    return await step.wait_for_event("go", timeout=60)


async def waiting(fleet: Fleet, flow: Any, name: str) -> str:
    run_id = await fleet.start(flow, name=name)
    await fleet.until(run_id, RunStatus.WAITING)
    return run_id


async def spoil(fleet: Fleet, run_id: str, old: str, new: str) -> None:
    """As another release may have written the run's only step."""
    journal = thread_keys_of(run_id).journal(run_id)
    [(key, entry)] = ((str(key), str(entry)) for key, entry in (await fleet.client.hgetall(journal)).items())
    assert old in entry
    await fleet.client.hset(journal, key, entry.replace(old, new))


async def due_in(client: Redis, name: str, member: str) -> float:
    at, (seconds, _) = await client.zscore(name, member), await client.time()
    assert at is not None
    return float(at) / 1000 - seconds


async def test_a_wait_with_a_field_of_a_newer_release_ends_in_time(fleet: Fleet) -> None:
    run_id = await waiting(fleet, nap, "one")
    await spoil(fleet, run_id, '"kind":"timer","', '"kind":"timer","of_tomorrow":1,"')
    await fleet.until(run_id, RunStatus.SUCCEEDED)


async def test_a_wait_of_an_unknown_kind_is_put_off_and_keeps_no_other_waiting(fleet: Fleet) -> None:
    strange = await waiting(fleet, nap, "one")
    await spoil(fleet, strange, '"kind":"timer","', '"kind":"of_tomorrow","')
    sound = await waiting(fleet, nap, "two")
    await fleet.until(sound, RunStatus.SUCCEEDED)
    async with asyncio.timeout(BOUND_SECONDS):
        while await due_in(fleet.client, thread_keys_of(strange).timers, f"wake|{strange}|sleep") < PUT_OFF:
            await fleet.work()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("timer", ["of_tomorrow|{thread}.x", "wake|{thread}.x|step"])
async def test_a_timer_that_cannot_be_done_is_put_off(fleet: Fleet, timer: str) -> None:
    thread_id = new_thread_id()
    member, k = timer.format(thread=thread_id), ThreadKeys(thread_id)
    await fleet.client.set(k.journal(f"{thread_id}.x"), "not a journal")
    await fleet.client.zadd(k.timers, {member: 1})
    await Agenda(fleet.out).tick(range(SHARDS))
    assert await due_in(fleet.client, k.timers, member) > PUT_OFF


class Hanging:
    """A store of large results that never answers."""

    async def delete(self, _: Ref) -> None:
        await asyncio.Event().wait()


async def test_a_store_that_hangs_keeps_no_timer_waiting(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its items ends in time too, and is put off."""
    monkeypatch.setattr("modem.agenda.ITEM_SECONDS", 3.0)
    thread_id = new_thread_id()
    ref = Ref.of("folder", thread_id, b"x")
    fleet.out.store.payloads._stores = {"folder": Hanging()}  # type: ignore[dict-item]
    gone = ref.marker.replace("blob|", "gone|")
    await fleet.client.zadd(ThreadKeys(thread_id).timers, {gone: 1})
    run_id = await waiting_without_sweeping(fleet)
    await fleet.client.zadd(keys.WORKERS, {"me": 2**52})
    looking = asyncio.create_task(Agenda(fleet.out).run(Me(), 0.02))
    try:
        async with asyncio.timeout(BOUND_SECONDS):
            while (await fleet.run(run_id)).status is not RunStatus.PENDING:
                await asyncio.sleep(0.02)
        assert await fleet.client.zscore(ThreadKeys(thread_id).timers, gone) == 1, "it still hangs"
        async with asyncio.timeout(BOUND_SECONDS):
            while await due_in(fleet.client, ThreadKeys(thread_id).timers, gone) < PUT_OFF:
                await asyncio.sleep(0.02)
    finally:
        await cancel([looking])


class Me:
    name = "me"


async def waiting_without_sweeping(fleet: Fleet) -> str:
    run_id = await fleet.start(nap, name="one")
    await fleet.client.delete("rung")
    await fleet.runner.execute(run_id, "w1", Signals())
    assert (await fleet.run(run_id)).status is RunStatus.WAITING
    return run_id


async def test_a_waiter_that_cannot_be_answered_keeps_no_other_waiting(fleet: Fleet) -> None:
    run_ids = [await waiting(fleet, wait, f"flow {number}") for number in range(3)]
    await fleet.client.set(thread_keys_of(run_ids[0]).journal(run_ids[0]), "not a journal")
    topic = Topic.of("w", "go")
    await fleet.publish("go", 7)
    await fleet.work()
    for run_id in run_ids[1:]:
        assert (await fleet.run(run_id)).output == 7
    left = await fleet.client.zrange(topic.keys.waiters, 0, -1)
    assert [str(waiter).partition("/")[0] for waiter in left] == run_ids[:1]
    assert await due_in(fleet.client, topic.keys.deliveries, topic.member) > PUT_OFF


async def test_more_broken_waiters_than_are_answered_at_once_keep_no_other_waiting(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.events.answers.WAITERS_AT_ONCE", 2)
    run_ids = [await waiting(fleet, wait, f"flow {number}") for number in range(6)]
    for run_id in run_ids[:4]:
        await fleet.client.set(thread_keys_of(run_id).journal(run_id), "not a journal")
    await fleet.publish("go", 7)
    await fleet.work()
    assert [(await fleet.run(run_id)).output for run_id in run_ids[4:]] == [7, 7]


async def test_a_topic_that_cannot_be_read_keeps_no_other_waiting(fleet: Fleet) -> None:
    run_id = await waiting(fleet, wait, "one")
    for shard in range(SHARDS):
        await fleet.client.zadd(keys.deliveries(shard), {"no topic": 1})
    await fleet.publish("go", 7)
    await fleet.until(run_id, RunStatus.SUCCEEDED)


async def test_a_run_that_this_release_cannot_read_is_given_back_and_fails_in_the_end(fleet: Fleet) -> None:
    run_id = await fleet.start(nap)
    await fleet.client.hset(thread_keys_of(run_id).run(run_id), "runnable_type", "of_tomorrow")
    runner = Runner(fleet.out, a_runtime(Playbook([turn("x")]), functions=fleet.functions, client=fleet.client))
    record = thread_keys_of(run_id).run(run_id)
    for _ in range(runner._runtime.settings.worker.max_attempts):
        assert await fleet.client.hget(record, "status") == "pending"
        assert await runner.execute(run_id, "w1", Signals()) in (run_id, None)
    status, error = await fleet.client.hmget(record, "status", "error")
    assert (status, ErrorCode.NO_PROGRESS in str(error)) == ("failed", True)
