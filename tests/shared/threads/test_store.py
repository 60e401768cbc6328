import asyncio
import itertools
import secrets
import time
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from shared.errors import AppError, ErrorCode
from shared.ids import new_run_id, new_thread_id
from shared.keys import ThreadKeys
from shared.tenant import Tenant
from shared.threads.attempt import Attempt
from shared.threads.steps import StepRecord
from shared.threads.store import ThreadStore, after
from shared.threads.types import NewEvent, NewRun, NewThread
from shared.types import EventType, RunStatus, StepStatus


async def a_thread(store: ThreadStore) -> str:
    return (await store.create_thread(NewThread(new_thread_id(), "w", metadata={"a": 1}))).id


async def a_run(store: ThreadStore, thread_id: str) -> str:
    run_id = new_run_id(thread_id)
    await store.submit(NewRun(run_id, "w", {"task": "x"}), queued={})
    return run_id


async def an_attempt(store: ThreadStore, run_id: str, worker: str = "w1") -> Attempt:
    attempt = await store.claim(run_id, worker, secrets.token_hex(4))
    assert attempt is not None
    return attempt


async def test_a_thread_made_twice_is_one_thread(store: ThreadStore) -> None:
    thread_id = new_thread_id()
    first = await store.create_thread(NewThread(thread_id, "w", metadata={"name": "first"}))
    second = await store.create_thread(NewThread(thread_id, "w", metadata={"name": "second"}))
    assert first == second
    assert await store.thread_ids(Tenant("w"), before=None, limit=10) == [thread_id]


async def test_threads_are_listed_newest_first_and_page_by_id(store: ThreadStore) -> None:
    ids = [await a_thread(store) for _ in range(5)]
    ids.sort(reverse=True)
    assert await store.thread_ids(Tenant("w"), before=None, limit=2) == ids[:2]
    assert await store.thread_ids(Tenant("w"), before=ids[1], limit=10) == ids[2:]
    assert await store.thread_ids(Tenant("other"), before=None, limit=10) == []


async def test_a_run_submitted_fifty_times_at_once_is_one_run(store: ThreadStore) -> None:
    thread_id = await a_thread(store)
    new = NewRun(new_run_id(thread_id), "w", {"task": "x"})
    answers = await asyncio.gather(*(store.submit(new, queued={}) for _ in range(50)))
    assert len(set(answers)) == 1
    assert await store.run_ids(thread_id) == [new.id]
    assert len(await store.events(thread_id)) == 1


async def test_a_thread_that_does_not_exist_takes_no_run(store: ThreadStore) -> None:
    with pytest.raises(AppError) as caught:
        await store.submit(NewRun(new_run_id(new_thread_id()), "w", {}), queued={})
    assert caught.value.code is ErrorCode.NOT_FOUND


async def test_only_the_oldest_run_of_a_thread_can_be_claimed_and_the_next_follows_its_end(store: ThreadStore) -> None:
    thread_id = await a_thread(store)
    first, second, third = [await a_run(store, thread_id) for _ in range(3)]
    assert await store.claim(second, "w1", "early") is None
    attempt = await an_attempt(store, first)
    assert await attempt.end(RunStatus.SUCCEEDED, {}, {"output": "done"}) == second
    assert await store.claim(third, "w1", "early") is None
    await an_attempt(store, second)


async def test_two_workers_that_claim_at_once_get_one_claim_between_them(store: ThreadStore) -> None:
    run_id = await a_run(store, await a_thread(store))
    claims = await asyncio.gather(*(store.claim(run_id, f"w{i}", f"claim.{i}") for i in range(20)))
    assert sum(claim is not None for claim in claims) == 1


async def test_event_ids_rise_within_a_call_and_past_a_clock_that_went_back(
    store: ThreadStore, redis_client: Redis
) -> None:
    thread_id = await a_thread(store)
    attempt = await an_attempt(store, await a_run(store, thread_id))
    await attempt.emit([NewEvent("agent.delta", {"text": str(n)}, 1) for n in range(5)])
    ahead = f"{int(time.time() * 1000) + 3_600_000}-7"
    await redis_client.hset(ThreadKeys(thread_id).metadata, "last_id", ahead)
    await attempt.emit([NewEvent("agent.delta", {"text": "late"}, 1)])
    ids = [event.id for event in await store.events(thread_id)]
    assert all(after(later, earlier) for earlier, later in itertools.pairwise(ids))
    assert ids[-1] == ahead.replace("-7", "-8")


async def test_an_event_is_json_with_its_place_and_the_servers_time(store: ThreadStore) -> None:
    thread_id = await a_thread(store)
    run_id = await a_run(store, thread_id)
    attempt = await an_attempt(store, run_id)
    await attempt.emit([NewEvent("agent.delta", {"text": 'é "\\ \u2028 \x00'}, 3)])
    entry = (await store.events(thread_id))[-1]
    event = orjson.loads(entry.event)
    when = datetime.fromisoformat(event.pop("time"))
    assert when == datetime.fromtimestamp(int(entry.id.split("-")[0]) / 1000, UTC)
    assert event == {
        "type": "agent.delta",
        "thread_id": thread_id,
        "run_id": run_id,
        "step_id": f"{run_id}.3",
        "attempt": 1,
        "data": {"text": 'é "\\ \u2028 \x00'},
    }


async def test_an_event_of_no_known_shape_is_refused_before_it_is_written(store: ThreadStore) -> None:
    attempt = await an_attempt(store, await a_run(store, await a_thread(store)))
    with pytest.raises(ValueError, match="not an event type"):
        await attempt.emit([NewEvent('x","evil":"', {})])


async def test_a_run_whose_workers_die_without_progress_fails_in_the_end(store: ThreadStore) -> None:
    run_id = await a_run(store, await a_thread(store))
    for attempt in range(3):
        await an_attempt(store, run_id, f"w{attempt}")
        await store.expire(run_id, f"w{attempt}", max_attempts=3)
    run = await store.run(run_id)
    assert run is not None
    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert run.error["code"] == ErrorCode.NO_PROGRESS


async def test_a_cancel_reaches_a_running_attempt_with_its_next_write(store: ThreadStore) -> None:
    run_id = await a_run(store, await a_thread(store))
    attempt = await an_attempt(store, run_id)
    run, following = await store.cancel(run_id, reason="test")
    assert (run.status, run.cancel_requested, following) == (RunStatus.RUNNING, True, None)
    assert await store.cancel_requested([run_id, new_run_id(run.thread_id)]) == {run_id}
    await attempt.emit([NewEvent("agent.delta", {"text": "x"}, 1)])
    assert attempt.canceled.is_set()


async def test_a_subscriber_of_the_threads_channel_hears_each_new_id(store: ThreadStore, redis_client: Redis) -> None:
    thread_id = await a_thread(store)
    async with redis_client.pubsub() as pubsub:
        await pubsub.ssubscribe(ThreadKeys(thread_id).channel)
        await a_run(store, thread_id)
        heard: list[dict[str, Any]] = []
        while not heard or heard[-1]["type"] != "smessage":
            heard.append(await pubsub.get_message(timeout=5))
    assert heard[-1]["data"].decode() == (await store.events(thread_id))[-1].id


async def test_times_are_right_on_every_day_of_the_calendar(redis_client: Redis) -> None:
    library = files("shared.threads").joinpath("lib.lua").read_text()
    script = redis_client.register_script(library + "return rfc3339(tonumber(ARGV[1]))")
    for day in range(0, 60_000, 7):
        moment = datetime.fromtimestamp(day * 86_400 + day % 86_400, UTC)
        text = await script(args=[int(moment.timestamp() * 1000) + 123])
        assert datetime.fromisoformat(text.decode()) == moment.replace(microsecond=123_000)


async def test_a_write_that_the_network_delivers_late_changes_nothing(store: ThreadStore) -> None:
    run_id = await a_run(store, await a_thread(store))
    attempt = await an_attempt(store, run_id)
    sent: list[tuple[str, list[str], list[Any]]] = []
    call = store._scripts.call

    async def recorded(name: str, keys: list[str], args: list[Any], **how: Any) -> Any:
        sent.append((name, keys, args))
        return await call(name, keys, args, **how)

    store._scripts.call = recorded  # type: ignore[assignment, method-assign]
    for text in "abc":
        await attempt.emit([NewEvent(EventType.AGENT_DELTA, {"text": text})])
    before = await store.events(attempt.run.thread_id)
    for late in sent:
        await call(*late)
    assert await store.events(attempt.run.thread_id) == before


async def test_a_step_record_of_a_newer_release_can_be_read(store: ThreadStore) -> None:
    record = StepRecord("k", 1, "n", "test", StepStatus.RUNNING, "h")
    newer = orjson.dumps(orjson.loads(record.encode()) | {"invented_later": 1}).decode()
    assert StepRecord.parse("k", f"running {newer}") == record


async def test_who_repeats_an_expiry_or_a_cancel_is_told_again_for_whom_to_ring(store: ThreadStore) -> None:
    run_id = await a_run(store, await a_thread(store))
    await an_attempt(store, run_id)
    first = await store.expire(run_id, "w1", max_attempts=3)
    assert (first.ring, first.failed) == (run_id, False)
    assert await store.expire(run_id, "w1", max_attempts=3) == first

    thread_id = run_id.partition(".")[0]
    waiting, following = new_run_id(thread_id), new_run_id(thread_id)
    for queued in (waiting, following):
        await store.submit(NewRun(queued, "w", {"task": "x"}), queued={})
    await (await an_attempt(store, run_id)).end(RunStatus.SUCCEEDED, {}, {})
    assert (await store.cancel(waiting, reason="test"))[1] == following
    assert (await store.cancel(waiting, reason="test"))[1] == following
