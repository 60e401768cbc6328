"""Runs that call runs: children have a thread of their own, and end with their parent."""

import asyncio
from typing import Any

import pytest

from shared.config import WorkerSettings
from shared.errors import ErrorCode
from shared.types import RunStatus, StepStatus
from tests.support.stack import until
from tests.workflow.fleet import Fleet
from tests.workflow.support import Playbook, a_runtime
from workflow.engine.durable import durable
from workflow.engine.step import Step, StepFailed
from workflow.runner import Signals, take_from

pytestmark = pytest.mark.parametrize("fleet", [False, True], ids=["held", "parked after every step"], indirect=True)


async def test_a_child_run_gives_its_output_or_its_failure(fleet: Fleet) -> None:
    async def child(step: Step, input: Any) -> Any:
        await step.wait_for_event("child may go")
        if input == "fail":
            raise ValueError("no luck")
        return {"got": input}

    function = durable("child")(child)
    fleet.functions.append(function)

    async def flow(step: Step, _: Any) -> Any:
        well = await step.call(function, "x")
        agent = await step.call("agent", "Say something.")
        with pytest.raises(StepFailed, match="ValueError: no luck") as caught:
            await step.call("function:child", "fail")
        return [well, agent, caught.value.code]

    run_id = await fleet.start(flow)
    await fleet.until(run_id, RunStatus.WAITING)
    await fleet.publish("child may go")
    run = await fleet.until(run_id, RunStatus.SUCCEEDED)
    assert run.output == [{"got": "x"}, "An agent's answer.", ErrorCode.STEP_FAILED]
    assert await fleet.leftovers() == []


async def test_a_child_has_its_parents_priority_and_nothing_else_of_its_parameters(fleet: Fleet) -> None:
    async def flow(step: Step, _: Any) -> Any:
        return await step.call("agent", "Say something.")

    fleet.functions.append(durable("flow")(flow))
    run_id = await fleet.submit("flow", None, priority="low", max_turns=9)
    await fleet.until(run_id, RunStatus.SUCCEEDED)
    [child] = [step.wait.name for step in await fleet.out.store.journal(run_id) if step.wait]
    assert (await fleet.run(child or "")).parameters == {"priority": "low"}


async def test_a_canceled_run_ends_after_its_children(fleet: Fleet) -> None:
    async def child(step: Step, _: Any) -> Any:
        await step.wait_for_event("never")

    fleet.functions.append(durable("child")(child))

    async def flow(step: Step, _: Any) -> Any:
        await asyncio.gather(step.call("function:child", name="a"), step.call("function:child", name="b"))

    run_id = await fleet.start(flow)
    await fleet.until(run_id, RunStatus.WAITING)
    children = [step.wait.name for step in await fleet.out.store.journal(run_id) if step.wait]
    await fleet.work()
    run, ring = await fleet.out.store.cancel(run_id, reason="test")
    assert run.status is RunStatus.PENDING
    await fleet.out.ring(ring)
    canceled = await fleet.until(run_id, RunStatus.CANCELED)
    for child_id in children:
        ended = await fleet.run(str(child_id))
        assert ended.status is RunStatus.CANCELED
        assert canceled.ended_at is not None
        assert ended.ended_at is not None
        assert ended.ended_at <= canceled.ended_at
    assert {step.status for step in await fleet.out.store.journal(run_id)} == {StepStatus.CANCELED}
    await fleet.work()
    assert await fleet.leftovers() == []


async def test_a_run_that_fails_for_want_of_progress_takes_its_children_with_it(fleet: Fleet) -> None:
    async def child(step: Step, _: Any) -> Any:
        await step.wait_for_event("never")

    fleet.functions.append(durable("child")(child))

    async def flow(step: Step, _: Any) -> Any:
        async def hang() -> None:
            await asyncio.Event().wait()

        await asyncio.gather(step.call("function:child"), step.do("hang", hang))

    run_id = await fleet.start(flow)
    max_attempts = WorkerSettings().max_attempts
    for number in range(max_attempts):
        runner = fleet.runner
        attempt = asyncio.create_task(runner.execute(run_id, f"dead-{number}", Signals()))
        await until(lambda runner=runner: run_id in runner.running(), 5)
        await until_journaled(fleet, run_id)
        runner.drop(f"dead-{number}")
        await attempt
        await take_from(f"dead-{number}", run_id, fleet.out.store, a_runtime(Playbook([]), client=fleet.client))
    assert (await fleet.run(run_id)).status is RunStatus.FAILED
    [step] = [step for step in await fleet.out.store.journal(run_id) if step.wait]
    assert step.wait is not None
    await fleet.until(str(step.wait.name), RunStatus.CANCELED)


async def until_journaled(fleet: Fleet, run_id: str) -> None:
    async with asyncio.timeout(5):
        while not [step for step in await fleet.out.store.journal(run_id) if step.wait]:
            await asyncio.sleep(0.01)


async def test_a_child_has_the_parameters_that_it_is_given_and_its_parents_priority(fleet: Fleet) -> None:
    async def flow(step: Step, _: Any) -> Any:
        return await step.call("agent", "Say something.", parameters={"max_turns": 3})

    fleet.functions.append(durable("flow")(flow))
    run_id = await fleet.submit("flow", None, priority="low")
    await fleet.until(run_id, RunStatus.SUCCEEDED)
    [child] = [step.wait.name for step in await fleet.out.store.journal(run_id) if step.wait]
    assert (await fleet.run(child or "")).parameters == {"priority": "low", "max_turns": 3}


async def test_a_child_keeps_the_parameters_of_the_attempt_that_called_it_first(fleet: Fleet) -> None:
    epochs = []

    async def flow(step: Step, _: Any) -> Any:
        epochs.append(step.run.epoch)
        answer = await step.call("agent", "Say something.", parameters={"max_turns": len(epochs)})
        await step.wait_for_event("go on")
        return answer

    run_id = await fleet.start(flow)
    await fleet.until(run_id, RunStatus.WAITING)
    await fleet.publish("go on")
    assert (await fleet.until(run_id, RunStatus.SUCCEEDED)).output == "An agent's answer."
    assert len(epochs) > 1
    [child, _] = [step.wait.name for step in await fleet.out.store.journal(run_id) if step.wait]
    assert (await fleet.run(child or "")).parameters == {"max_turns": 1}


@pytest.mark.parametrize(
    ("runnable", "parameters", "wrong"),
    [("agent", {"max_turn": 3}, "max_turn"), ("function:flow", {"max_cost": 1}, "max_cost")],
)
async def test_a_child_is_given_no_parameter_that_would_have_no_effect(
    fleet: Fleet, runnable: str, parameters: Any, wrong: str
) -> None:
    async def flow(step: Step, _: Any) -> Any:
        return await step.call(runnable, parameters=parameters)

    run = await fleet.until(await fleet.start(flow), RunStatus.FAILED)
    assert run.error is not None
    assert run.error["code"] == ErrorCode.INVALID_REQUEST
    assert wrong in run.error["detail"]


async def test_a_function_that_calls_itself_without_end_fails(fleet: Fleet) -> None:
    async def flow(step: Step, depth: Any) -> Any:
        return await step.call("function:flow", depth + 1)

    run = await fleet.until(await fleet.start(flow, 0), RunStatus.FAILED)
    assert run.error is not None
    assert run.error["code"] == ErrorCode.CALL_TOO_DEEP
    assert run.depth == 0
