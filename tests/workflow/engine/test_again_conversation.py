"""What a retry, a fork or a rollback makes of a thread's conversation, with other runs' turns between."""

from typing import Any

import pytest

from shared.ids import new_run_id, new_thread_id
from shared.threads import again
from shared.threads.attempt import Attempt, Change
from shared.threads.steps import StepRecord
from shared.threads.types import NewRun, NewThread
from shared.types import JSON, RunStatus, StepStatus
from tests.workflow.fleet import Fleet


@pytest.fixture
async def thread(fleet: Fleet) -> str:
    return (await fleet.out.store.create_thread(NewThread(new_thread_id(), "w"))).id


async def submitted(fleet: Fleet, thread: str, task: str, **how: Any) -> str:
    run_id = new_run_id(thread)
    await fleet.out.ring((await fleet.out.store.submit(NewRun(run_id, "w", {"task": task}), queued={}, **how)).ring)
    return run_id


async def whole_turn(fleet: Fleet, thread: str, task: str) -> None:
    run_id = await submitted(fleet, thread, task)
    await fleet.until(run_id, RunStatus.SUCCEEDED)


async def claimed(fleet: Fleet, run_id: str) -> Attempt:
    await fleet.client.delete("rung")
    attempt = await fleet.out.store.claim(run_id, "w1", f"claim of {run_id}")
    assert attempt is not None
    return attempt


async def add(attempt: Attempt, number: int, key: str, **message: Any) -> None:
    step = StepRecord(key, number, key, "test", StepStatus.SUCCEEDED, "h", result={}, messages=1)
    await attempt.commit(Change(steps=[step], messages=[message]))


async def begun(fleet: Fleet, thread: str, task: str) -> Attempt:
    """A run whose model has answered once."""
    attempt = await claimed(fleet, await submitted(fleet, thread, task))
    base = len(attempt.messages)
    await attempt.commit(Change(messages=[{"role": "user", "content": task}], run={"base": base, "model": "playbook"}))
    await add(attempt, 1, "llm:1", role="assistant", content=f"{task}'s answer")
    return attempt


async def canceled(fleet: Fleet, attempt: Attempt) -> None:
    await fleet.out.store.cancel(attempt.run.id, reason="test")
    await fleet.out.ring(await attempt.end(RunStatus.CANCELED, {"reason": "test"}, {}))


async def rolled_back(fleet: Fleet, thread: str, attempt: Attempt, by: str) -> str:
    following = await submitted(fleet, thread, by, on_busy="rollback")
    await fleet.out.ring(await attempt.end(RunStatus.CANCELED, {"reason": "rollback"}, {}))
    return following


async def retried(fleet: Fleet, run_id: str) -> str:
    run = await fleet.run(run_id)
    new_id = new_run_id(run.thread_id)
    await fleet.out.ring((await again.retry(fleet.out.store, run, new_id, key_id=None)).ring)
    return new_id


async def forked(fleet: Fleet, run_id: str) -> list[JSON]:
    run, new = await fleet.run(run_id), NewThread(new_thread_id(), "w")
    await again.fork_run(fleet.out.store, run, new, new_run_id(new.id), key_id=None, step=99, input=None)
    return await fleet.out.store.messages(new.id)


async def contents(fleet: Fleet, thread: str) -> list[str]:
    return [message["content"] for message in await fleet.out.store.messages(thread)]


async def test_the_rollback_of_a_retry_takes_back_what_the_retry_added_and_no_more(fleet: Fleet, thread: str) -> None:
    a = await begun(fleet, thread, "A")
    await canceled(fleet, a)
    await whole_turn(fleet, thread, "B")
    before = await contents(fleet, thread)
    retry = await claimed(fleet, await retried(fleet, a.run.id))
    await add(retry, 2, "llm:2", role="assistant", content="more of A")
    assert await contents(fleet, thread) == [*before, "more of A"]
    await rolled_back(fleet, thread, retry, "C")
    assert await contents(fleet, thread) == before


async def test_the_rollback_of_a_retry_that_has_added_nothing_takes_nothing_back(fleet: Fleet, thread: str) -> None:
    a = await begun(fleet, thread, "A")
    await canceled(fleet, a)
    await whole_turn(fleet, thread, "B")
    before = await contents(fleet, thread)
    await rolled_back(fleet, thread, await claimed(fleet, await retried(fleet, a.run.id)), "C")
    assert await contents(fleet, thread) == before


async def test_the_retry_of_a_run_that_was_rolled_back_begins_anew(fleet: Fleet, thread: str) -> None:
    a = await begun(fleet, thread, "A")
    b = await rolled_back(fleet, thread, a, "B")
    await fleet.until(b, RunStatus.SUCCEEDED)
    retry = await retried(fleet, a.run.id)
    await fleet.until(retry, RunStatus.SUCCEEDED)
    assert await contents(fleet, thread) == ["B", "An agent's answer.", "A", "An agent's answer."]


async def test_the_fork_of_a_run_that_was_rolled_back_begins_with_what_came_before_it(
    fleet: Fleet, thread: str
) -> None:
    await whole_turn(fleet, thread, "first")
    a = await begun(fleet, thread, "A")
    b = await rolled_back(fleet, thread, a, "B")
    await fleet.until(b, RunStatus.SUCCEEDED)
    assert [message["content"] for message in await forked(fleet, a.run.id)] == ["first", "An agent's answer."]


@pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.CANCELED])
async def test_a_message_that_a_run_did_not_get_to_stays_in_the_conversation(
    fleet: Fleet, thread: str, status: RunStatus
) -> None:
    a = await begun(fleet, thread, "A")
    assert await fleet.out.store.inject(a.run.id, {"role": "user", "content": "And this.", "id": "1"})
    await a.end(status, {}, {})
    assert await contents(fleet, thread) == ["A", "A's answer", "And this."]


async def test_a_message_for_a_run_that_never_began_is_gone_as_its_task_is(fleet: Fleet, thread: str) -> None:
    a = await begun(fleet, thread, "A")
    b = await submitted(fleet, thread, "B")
    assert await fleet.out.store.inject(b, {"role": "user", "content": "And this.", "id": "1"})
    await fleet.out.store.cancel(b, reason="test")
    await canceled(fleet, a)
    assert await contents(fleet, thread) == ["A", "A's answer"]


async def test_a_rollback_takes_back_the_messages_too_that_its_run_did_not_get_to(fleet: Fleet, thread: str) -> None:
    a = await begun(fleet, thread, "A")
    assert await fleet.out.store.inject(a.run.id, {"role": "user", "content": "And this.", "id": "1"})
    await rolled_back(fleet, thread, a, "B")
    assert await contents(fleet, thread) == []


async def test_a_fork_has_of_the_conversation_what_its_run_had(fleet: Fleet, thread: str) -> None:
    await whole_turn(fleet, thread, "first")
    a = await claimed(fleet, await submitted(fleet, thread, "A"))
    await a.commit(Change(messages=[{"role": "user", "content": "A"}], run={"base": 2, "model": "playbook"}))
    calls = [{"id": name, "function": {"name": "look", "arguments": "{}"}} for name in ("a", "b")]
    await add(a, 1, "llm:1", role="assistant", content="I look.", tool_calls=calls)
    await add(a, 3, "tool:b", role="tool", content="b done", tool_call_id="b")
    await add(a, 2, "tool:a", role="tool", content="a done", tool_call_id="a")
    await canceled(fleet, a)
    await whole_turn(fleet, thread, "B")
    retry = await claimed(fleet, await retried(fleet, a.run.id))
    await add(retry, 4, "llm:2", role="assistant", content="more of A")
    place = len(await contents(fleet, thread)) - 1
    await add(retry, 5, "compact:3", role="user", content="summary", compaction={"from": place, "task": 2})
    await canceled(fleet, retry)
    await whole_turn(fleet, thread, "C")
    fork = await forked(fleet, retry.run.id)
    assert [message["content"] for message in fork] == [
        *("first", "An agent's answer.", "A", "I look.", "a done", "b done", "more of A", "summary")
    ]
    assert fork[-1]["compaction"] == {"from": 6, "task": 2}
