"""Durable functions on a real Valkey: they wait without a worker, and go on wherever they are claimed next."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.errors import ErrorCode
from shared.events.bus import Topic
from shared.ids import new_run_id, new_thread_id, thread_of
from shared.tenant import Tenant
from shared.threads.steps import Answer
from shared.threads.types import NewRun, NewThread
from shared.types import RunStatus, StepStatus, WaitKind
from tests.support.stack import until
from tests.workflow.fleet import Fleet
from tests.workflow.support import Ledger, Playbook, a_runtime, turn
from workflow.engine.durable import durable
from workflow.engine.retry import NonRetryable, Retry
from workflow.engine.scope import StepScope
from workflow.engine.step import Step
from workflow.runner import Runner, Signals

pytestmark = pytest.mark.parametrize("fleet", [False, True], ids=["held", "parked after every step"], indirect=True)


async def test_a_wait_holds_no_worker_and_gets_the_event_that_comes_later(fleet: Fleet) -> None:
    async def flow(step: Step, _: Any) -> Any:
        return await step.wait_for_event("paid", key="7")

    run_id = await fleet.start(flow)
    waiting = await fleet.until(run_id, RunStatus.WAITING)
    assert waiting.worker is None
    await fleet.publish("paid", {"wrong": True}, key="8")
    await fleet.publish("paid", {"amount": 5}, key="7")
    run = await fleet.until(run_id, RunStatus.SUCCEEDED)
    assert (run.output, run.epoch) == ({"amount": 5}, 2)
    assert await fleet.leftovers() == []


async def test_an_event_that_came_first_is_found_and_each_wait_gets_the_next_one(fleet: Fleet) -> None:
    for number in range(2):
        await fleet.publish("tick", number)

    async def flow(step: Step, _: Any) -> Any:
        return [await step.wait_for_event("tick") for _ in range(3)]

    run_id = await fleet.start(flow)
    await fleet.until(run_id, RunStatus.WAITING)
    await fleet.publish("tick", 2)
    assert (await fleet.until(run_id, RunStatus.SUCCEEDED)).output == [0, 1, 2]


async def test_an_event_for_one_run_reaches_no_other(fleet: Fleet) -> None:
    async def flow(step: Step, _: Any) -> Any:
        return await step.wait_for_event("go")

    first, second = await fleet.start(flow, name="one"), await fleet.start(flow, name="two")
    await fleet.until(second, RunStatus.WAITING)
    await fleet.publish("go", "yours", run_id=first)
    assert (await fleet.until(first, RunStatus.SUCCEEDED)).output == "yours"
    assert (await fleet.run(second)).status is RunStatus.WAITING
    await fleet.publish("go", "everybody's")
    assert (await fleet.until(second, RunStatus.SUCCEEDED)).output == "everybody's"
    assert await fleet.leftovers() == []


async def test_look_back_leaves_old_events_to_others(fleet: Fleet) -> None:
    await fleet.publish("old", 1)

    async def flow(step: Step, _: Any) -> Any:
        return await step.wait_for_event("old", timeout=0.1, look_back=0)

    await asyncio.sleep(0.002)  # an event's time is in milliseconds
    run = await fleet.until(await fleet.start(flow), RunStatus.FAILED)
    assert run.error is not None
    assert run.error["code"] == ErrorCode.WAIT_TIMEOUT
    assert await fleet.leftovers() == []


async def test_a_sleep_ends_by_redis_time_and_never_early(fleet: Fleet) -> None:
    async def flow(step: Step, _: Any) -> Any:
        await step.sleep(0.3)
        await step.sleep_until(datetime.now(UTC) - timedelta(days=1))
        return "awake"

    run_id = await fleet.start(flow)
    begun = await fleet.out.store.now_ms()
    run = await fleet.until(run_id, RunStatus.SUCCEEDED)
    assert run.output == "awake"
    [first, _] = await fleet.out.store.journal(run_id)
    assert first.wait is not None
    assert first.wait.until is not None
    assert begun + 300 <= first.wait.until <= await fleet.out.store.now_ms()


async def test_a_wait_beside_work_waits_for_the_work(fleet: Fleet) -> None:
    done: list[str] = []

    async def flow(step: Step, _: Any) -> Any:
        async def work() -> str:
            await asyncio.sleep(0.05)
            done.append("work")
            return "worked"

        return await asyncio.gather(step.wait_for_event("go"), step.do("work", work), step.wait_for_event("stop"))

    run_id = await fleet.start(flow)
    await fleet.until(run_id, RunStatus.WAITING)
    assert done == ["work"]
    await fleet.publish("stop", 2)
    await fleet.work()
    assert (await fleet.run(run_id)).status is RunStatus.WAITING
    await fleet.publish("go", 1)
    run = await fleet.until(run_id, RunStatus.SUCCEEDED)
    assert (run.output, done) == ([1, "worked", 2], ["work"])


async def test_a_human_answers_an_approval_which_is_listed_until_then(fleet: Fleet) -> None:
    async def flow(step: Step, _: Any) -> Any:
        return await step.approve({"deploy": "v2"}, name="deploy")

    run_id = await fleet.start(flow)
    await fleet.until(run_id, RunStatus.WAITING)
    assert [step for _, step in await fleet.out.approvals.page(Tenant("w"), None, 10)] == [f"{run_id}.1"]
    [step] = await fleet.out.store.journal(run_id)
    assert (step.status, step.wait and step.wait.request) == (StepStatus.WAITING_HUMAN, {"deploy": "v2"})
    answer = Answer(StepStatus.SUCCEEDED, result={"yes": []})
    signaled = await fleet.out.store.signal(run_id, step.key, answer, [WaitKind.HUMAN])
    assert signaled is not None
    await fleet.out.ring(signaled.ring)
    assert (await fleet.until(run_id, RunStatus.SUCCEEDED)).output == {"yes": []}
    assert await fleet.leftovers() == []


async def test_a_failing_step_is_tried_again_as_its_policy_says_with_one_effect_key(fleet: Fleet) -> None:
    keys: list[str] = []

    async def flow(step: Step, _: Any) -> Any:
        async def flaky(scope: StepScope) -> str:
            keys.append(scope.effect_key)
            if len(keys) < 3:
                raise OSError("try again")
            return "at last"

        return await step.do("flaky", flaky, retry=Retry(max_attempts=3, backoff_seconds=0.05))

    run_id = await fleet.start(flow)
    assert (await fleet.until(run_id, RunStatus.SUCCEEDED)).output == "at last"
    assert keys == [f"{run_id}/flaky"] * 3


@pytest.mark.parametrize("raised", [NonRetryable("no"), KeyError("no")])
async def test_some_failures_are_not_tried_again(fleet: Fleet, raised: Exception) -> None:
    calls: list[int] = []

    async def flow(step: Step, _: Any) -> Any:
        async def refuse() -> None:
            calls.append(1)
            raise raised

        await step.do("refuse", refuse, retry=Retry(max_attempts=5, backoff_seconds=0, non_retryable=(KeyError,)))

    run = await fleet.until(await fleet.start(flow), RunStatus.FAILED)
    assert run.error is not None
    assert run.error["code"] == ErrorCode.STEP_FAILED
    assert type(raised).__name__ in run.error["detail"]
    assert len(calls) == 1


async def test_a_step_that_takes_too_long_or_gives_no_json_fails_in_words(fleet: Fleet) -> None:
    async def flow(step: Step, input: Any) -> Any:
        async def sleepy() -> Any:
            await asyncio.sleep(0 if input else 60)
            return {1, 2}

        await step.do("sleepy", sleepy, timeout=0.05)

    slow = await fleet.until(await fleet.start(flow, 0, "slow"), RunStatus.FAILED)
    odd = await fleet.until(await fleet.start(flow, 1, "odd"), RunStatus.FAILED)
    assert slow.error is not None
    assert odd.error is not None
    assert slow.error["code"] == ErrorCode.STEP_TIMEOUT
    assert "not JSON serializable: set" in odd.error["detail"]


async def test_changed_code_is_found_out_before_it_does_anything_new(fleet: Fleet) -> None:
    calls: list[str] = []

    async def before(step: Step, _: Any) -> Any:
        await step.do("charge", _noted(calls, "charge"))
        await step.wait_for_event("go")

    async def after(step: Step, _: Any) -> Any:
        await step.do("bill", _noted(calls, "bill"))
        await step.wait_for_event("go")

    run_id = await fleet.start(before)
    await fleet.until(run_id, RunStatus.WAITING)
    fleet.functions = [durable("flow")(after)]
    await fleet.publish("go")
    run = await fleet.until(run_id, RunStatus.FAILED)
    assert run.error is not None
    assert run.error["code"] == ErrorCode.REPLAY_MISMATCH
    assert "charge" in run.error["detail"]
    assert calls == ["charge"]


async def test_a_run_keeps_to_the_version_that_it_began_with(fleet: Fleet) -> None:
    async def old(step: Step, _: Any) -> Any:
        return ["old", await step.wait_for_event("go")]

    async def new(step: Step, _: Any) -> Any:
        return "new"

    run_id = await fleet.start(old)
    await fleet.until(run_id, RunStatus.WAITING)
    fleet.functions.append(durable("flow", version=2)(new))
    await fleet.publish("go", 1)
    assert (await fleet.until(run_id, RunStatus.SUCCEEDED)).output == ["old", 1]


@pytest.mark.parametrize(("decision", "calls"), [("repeat", 2), ("done", 1), ("failed", 1)])
async def test_an_effect_that_must_not_be_repeated_waits_for_a_decision_after_a_crash(
    fleet: Fleet, decision: str, calls: int
) -> None:
    ledger: list[str] = []

    async def flow(step: Step, _: Any) -> Any:
        async def pay() -> str:
            ledger.append("paid")
            if len(ledger) == 1:
                await asyncio.Event().wait()
            return "receipt"

        return await step.do("pay", pay, repeat=False)

    run_id = await fleet.start(flow)
    runner = fleet.runner
    attempt = asyncio.create_task(runner.execute(run_id, "dead", Signals()))
    await until(lambda: ledger == ["paid"], 5)
    runner.drop("dead")
    await attempt
    await fleet.out.ring((await fleet.out.store.expire(run_id, "dead", max_attempts=5)).ring)
    await fleet.until(run_id, RunStatus.WAITING)
    assert [step for _, step in await fleet.out.approvals.page(Tenant("w"), None, 10)] == [f"{run_id}.1"]
    answer = Answer(StepStatus.PENDING, result={"as": decision, "output": "found"})
    signaled = await fleet.out.store.signal(run_id, "pay", answer, [WaitKind.OUTCOME])
    assert signaled is not None
    await fleet.out.ring(signaled.ring)
    run = await fleet.until(run_id, RunStatus.FAILED if decision == "failed" else RunStatus.SUCCEEDED)
    assert run.output == {"repeat": "receipt", "done": "found", "failed": None}[decision]
    assert len(ledger) == calls
    await fleet.work()
    assert await fleet.leftovers() == []


async def test_publish_and_emit_happen_once_however_often_the_run_is_replayed(fleet: Fleet) -> None:
    async def flow(step: Step, _: Any) -> Any:
        await step.emit("progress", {"percent": 50})
        await step.publish("half", {"way": True})
        for _ in range(3):
            await step.sleep(0)

    run_id = await fleet.start(flow)
    run = await fleet.until(run_id, RunStatus.SUCCEEDED)
    assert run.epoch >= 4
    events = [entry.type for entry in await fleet.out.store.events(thread_of(run_id))]
    assert events.count("progress") == 1
    topic = Topic.of("w", "half")
    first = await fleet.out.bus.register(topic, "me", "0")
    assert first is not None
    assert await fleet.out.bus.register(topic, "me", first.id) is None


def _noted(calls: list[str], name: str) -> Callable[[], Awaitable[str]]:
    async def fn() -> str:
        calls.append(name)
        return name

    return fn


@pytest.mark.parametrize(("decision", "effects"), [("repeat", 2), ("done", 1), ("failed", 1)])
async def test_a_tool_call_to_the_outside_whose_outcome_is_unknown_waits_for_a_human(
    fleet: Fleet, decision: str, effects: int
) -> None:
    ledger = Ledger()
    book = Playbook([turn("I act.", ("a", "asking", "{}")), turn("Done.")])
    thread = await fleet.out.store.create_thread(NewThread(new_thread_id(), "w"))
    run_id = new_run_id(thread.id)
    await fleet.out.store.submit(NewRun(run_id, "w", {"task": "Act."}), queued={})
    runner = Runner(fleet.out, a_runtime(book, ledger))
    ledger.dies = lambda: runner.drop("dead") if ledger.effects else None
    await runner.execute(run_id, "dead", Signals())
    ledger.dies = lambda: None
    await fleet.out.store.expire(run_id, "dead", max_attempts=5)
    await runner.execute(run_id, "w1", Signals())
    assert (await fleet.run(run_id)).status is RunStatus.WAITING
    answer = Answer(StepStatus.PENDING, result={"as": decision, "output": "receipt 7"})
    await fleet.out.store.signal(run_id, "tool:a", answer, [WaitKind.OUTCOME])
    await runner.execute(run_id, "w1", Signals())
    assert (await fleet.run(run_id)).status is RunStatus.SUCCEEDED
    assert list(ledger.effects.values()) == [effects]
    told = (await fleet.out.store.messages(thread.id))[2]["content"]
    said = {"repeat": "asking done", "done": "found to have been done. receipt 7", "failed": "found to have failed."}
    assert said[decision] in told


async def test_a_wait_answered_at_the_last_moment_leaves_the_run_waiting_for_the_others(fleet: Fleet) -> None:
    async def flow(step: Step, _: Any) -> Any:
        return await asyncio.gather(step.wait_for_event("mine"), step.wait_for_event("theirs"), step.publish("mine", 1))

    run_id = await fleet.start(flow)
    await fleet.until(run_id, RunStatus.WAITING)
    await fleet.publish("theirs", 2)
    assert (await fleet.until(run_id, RunStatus.SUCCEEDED)).output == [1, 2, None]
