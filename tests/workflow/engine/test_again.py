"""What a retry or a fork makes of effects that were under way in the run that it begins with."""

import asyncio
from typing import Any

import pytest

from shared.errors import AppError
from shared.ids import new_run_id, new_thread_id
from shared.threads import again
from shared.threads.steps import Answer
from shared.threads.types import NewRun, NewThread
from shared.types import RunStatus, StepStatus, WaitKind
from tests.support.stack import until
from tests.workflow.fleet import Fleet
from tests.workflow.support import Ledger, Playbook, a_runtime, turn
from workflow.engine.durable import durable
from workflow.engine.retry import NonRetryable
from workflow.engine.scope import StepScope
from workflow.engine.step import Step
from workflow.runner import Runner, Signals


async def retried(fleet: Fleet, run_id: str) -> str:
    run = await fleet.run(run_id)
    new_id = new_run_id(run.thread_id)
    await fleet.out.ring((await again.retry(fleet.out.store, run, new_id, key_id=None)).ring)
    return new_id


async def forked(fleet: Fleet, run_id: str) -> str:
    run, thread = await fleet.run(run_id), NewThread(new_thread_id(), "w")
    new_id = new_run_id(thread.id)
    submitted = await again.fork_run(fleet.out.store, run, thread, new_id, key_id=None, step=99, input=None)
    await fleet.out.ring(submitted.ring)
    return new_id


@pytest.mark.parametrize("once_more", [retried, forked])
async def test_a_functions_effect_that_was_under_way_is_not_repeated_before_somebody_says_so(
    fleet: Fleet, once_more: Any
) -> None:
    ledger: list[str] = []

    async def flow(step: Step, _: Any) -> Any:
        async def pay() -> None:
            ledger.append("paid")
            await asyncio.Event().wait()

        return await step.do("pay", pay, repeat=False)

    run_id, runner = await fleet.start(flow), fleet.runner
    attempt = asyncio.create_task(runner.execute(run_id, "w1", Signals()))
    await until(lambda: ledger == ["paid"], 5)
    runner.cancel(run_id)
    await attempt
    second = await once_more(fleet, run_id)
    await fleet.until(second, RunStatus.WAITING)
    await fleet.out.ring((await fleet.out.store.cancel(second, reason="test"))[1])
    await fleet.until(second, RunStatus.CANCELED)
    third = await once_more(fleet, second)
    await fleet.until(third, RunStatus.WAITING)
    assert ledger == ["paid"]
    found = Answer(StepStatus.PENDING, result={"as": "done", "output": "receipt 7"})
    signaled = await fleet.out.store.signal(third, "pay", found, [WaitKind.OUTCOME])
    assert signaled is not None
    await fleet.out.ring(signaled.ring)
    assert (await fleet.until(third, RunStatus.SUCCEEDED)).output == "receipt 7"
    await fleet.work()
    assert await fleet.leftovers() == []


@pytest.mark.parametrize("tool", ["keyed", "blind", "look"])
async def test_an_agent_is_told_that_nobody_knows_what_became_of_its_call(fleet: Fleet, tool: str) -> None:
    ledger = Ledger()
    book = Playbook([turn("I act.", ("a", tool, "{}")), turn("Done.")])
    thread = await fleet.out.store.create_thread(NewThread(new_thread_id(), "w"))
    run_id = new_run_id(thread.id)
    await fleet.out.store.submit(NewRun(run_id, "w", {"task": "Act."}), queued={})
    runner = Runner(fleet.out, a_runtime(book, ledger))
    ledger.dies = lambda: runner.cancel(run_id) if ledger.effects else None
    await runner.execute(run_id, "w1", Signals())
    ledger.dies = lambda: None
    assert (await fleet.run(run_id)).status is RunStatus.CANCELED
    second = await retried(fleet, run_id)
    await runner.execute(second, "w1", Signals())
    assert (await fleet.run(second)).status is RunStatus.SUCCEEDED
    told = (await fleet.out.store.messages(thread.id))[2]["content"]
    if tool == "look":  # it only reads
        assert told == "look done"
    else:
        assert "not known" in told
        assert sum(ledger.effects.values()) == 1


async def test_a_retry_names_an_effect_as_the_run_that_it_retries_did(fleet: Fleet) -> None:
    keys: list[str] = []

    async def flow(step: Step, _: Any) -> Any:
        async def charge(scope: StepScope) -> str:
            keys.append(scope.effect_key)
            if len(keys) < 3:
                raise NonRetryable("the answer was lost")
            return "charged"

        return await step.do("charge", charge)

    run_id = await fleet.start(flow)
    for _ in range(2):
        await fleet.until(run_id, RunStatus.FAILED)
        run_id = await retried(fleet, run_id)
    assert (await fleet.until(run_id, RunStatus.SUCCEEDED)).output == "charged"
    await fleet.until(await forked(fleet, run_id), RunStatus.SUCCEEDED)
    assert len(keys) == 3
    assert len(set(keys)) == 1


async def test_a_child_that_was_canceled_with_its_parent_is_called_again(fleet: Fleet) -> None:
    async def child(step: Step, _: Any) -> Any:
        return await step.wait_for_event("go")

    async def flow(step: Step, _: Any) -> Any:
        return await step.call("function:child")

    fleet.functions.append(durable("child")(child))
    run_id = await fleet.start(flow)
    await fleet.until(run_id, RunStatus.WAITING)
    await fleet.out.ring((await fleet.out.store.cancel(run_id, reason="test"))[1])
    await fleet.until(run_id, RunStatus.CANCELED)
    second = await retried(fleet, run_id)
    await fleet.until(second, RunStatus.WAITING)
    await fleet.publish("go", "gone")
    assert (await fleet.until(second, RunStatus.SUCCEEDED)).output == "gone"


async def together(step: Step, work: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(step.do(name, work)) for name in ("one", "two")]
    return [task.result() for task in tasks]


async def in_other_words(step: Step, work: Any) -> Any:
    try:
        return [await step.do(name, work) for name in ("one", "two")]
    except AppError as error:
        raise ValueError("no luck") from error


async def reported_later(step: Step, work: Any) -> Any:
    kept = None
    try:
        return [await step.do(name, work) for name in ("one", "two")]
    except AppError as error:
        kept = str(error)
    raise ValueError(kept)


@pytest.mark.parametrize("flow", [together, in_other_words, reported_later])
async def test_a_retry_does_the_failed_step_again_however_the_flow_told_of_it(fleet: Fleet, flow: Any) -> None:
    tries: list[int] = []

    async def work() -> str:
        tries.append(1)
        if len(tries) == 2:
            raise RuntimeError("the provider was down")
        return "done"

    async def run_flow(step: Step, _: Any) -> Any:
        return await flow(step, work)

    run_id = await fleet.start(run_flow)
    await fleet.until(run_id, RunStatus.FAILED)
    run = await fleet.until(await retried(fleet, run_id), RunStatus.SUCCEEDED)
    assert (run.output, len(tries)) == (["done", "done"], 3)


async def test_a_retry_does_both_steps_again_that_failed_side_by_side(fleet: Fleet) -> None:
    calls: list[int] = []
    both = asyncio.Barrier(2)

    async def work() -> str:
        calls.append(1)
        if len(calls) <= 2:
            await both.wait()
            raise RuntimeError("the provider was down")
        return "done"

    async def flow(step: Step, _: Any) -> Any:
        return await together(step, work)

    run_id = await fleet.start(flow)
    await fleet.until(run_id, RunStatus.FAILED)
    second = await fleet.until(await retried(fleet, run_id), RunStatus.SUCCEEDED)
    assert second.output == ["done", "done"]


async def test_a_retry_leaves_a_failure_that_the_flow_got_over(fleet: Fleet) -> None:
    calls: list[str] = []

    async def flow(step: Step, _: Any) -> Any:
        async def work(name: str, fails: int) -> str:
            calls.append(name)
            if calls.count(name) <= fails:
                raise RuntimeError("it was down")
            return name

        try:
            return await step.do("first", lambda: work("first", 1))
        except AppError:
            await step.do("second", lambda: work("second", 0))
        return await step.do("third", lambda: work("third", 1))

    run_id = await fleet.start(flow)
    await fleet.until(run_id, RunStatus.FAILED)
    await fleet.until(await retried(fleet, run_id), RunStatus.SUCCEEDED)
    assert calls == ["first", "second", "third", "third"]
