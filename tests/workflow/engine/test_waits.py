"""What waits leave behind, and what they say."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from modem.agenda import Agenda
from shared.ids import SHARDS
from shared.threads.steps import Answer
from shared.types import RunStatus, StepStatus, WaitKind
from tests.workflow.fleet import Fleet
from workflow.engine.durable import durable
from workflow.engine.step import Step
from workflow.runner import Signals

Call = Callable[..., Awaitable[Any]]


@pytest.mark.parametrize("asked", [0, "", False, []])
async def test_an_approval_may_ask_anything(fleet: Fleet, asked: Any) -> None:
    async def flow(step: Step, _: Any) -> Any:
        return await step.approve(asked)

    run_id = await fleet.start(flow)
    await fleet.until(run_id, RunStatus.WAITING)
    [step] = await fleet.out.store.journal(run_id)
    assert step.wait is not None
    assert step.wait.request == asked
    assert type(step.wait.request) is type(asked)


def arranged_late(fleet: Fleet, run_id: str, call: Call, over: Call) -> Call:
    """`call`, but the wait that it arranges is over and cleaned up after before: the attempt stood still."""

    async def late(*args: Any, **kwargs: Any) -> Any:
        await over(run_id)
        await Agenda(fleet.out).tick(range(SHARDS))
        return await call(*args, **kwargs)

    return late


async def test_an_approval_that_is_listed_after_its_answer_does_not_stay_listed(fleet: Fleet) -> None:
    async def flow(step: Step, _: Any) -> Any:
        return await step.approve("may I?")

    async def answer(run_id: str) -> None:
        yes = Answer(StepStatus.SUCCEEDED, result="yes")
        await fleet.out.store.signal(run_id, "approve:approval", yes, [WaitKind.HUMAN])

    run_id = await fleet.start(flow)
    add = fleet.out.approvals.add
    fleet.out.approvals.add = arranged_late(fleet, run_id, add, answer)  # type: ignore[assignment, method-assign]
    assert (await fleet.until(run_id, RunStatus.SUCCEEDED)).output == "yes"
    assert await fleet.leftovers() == []


async def test_a_waiter_that_is_registered_after_its_run_has_ended_does_not_stay_registered(fleet: Fleet) -> None:
    async def flow(step: Step, _: Any) -> Any:
        return await step.wait_for_event("paid", key="7")

    async def cancel(run_id: str) -> None:
        await fleet.out.store.expire(run_id, "w1", max_attempts=9)
        await fleet.out.store.cancel(run_id, reason="test")
        await fleet.runner.execute(run_id, "w2", Signals())

    run_id = await fleet.start(flow)
    register = fleet.out.bus.register
    fleet.out.bus.register = arranged_late(fleet, run_id, register, cancel)  # type: ignore[assignment, method-assign]
    await fleet.work()
    assert (await fleet.run(run_id)).status is RunStatus.CANCELED
    assert await fleet.leftovers() == []


async def test_a_child_that_is_born_after_its_parent_has_failed_is_canceled(fleet: Fleet) -> None:
    async def child(step: Step, _: Any) -> Any:
        return await step.wait_for_event("never")

    async def flow(step: Step, _: Any) -> Any:
        return await step.call("function:child")

    async def fail(run_id: str) -> None:
        await fleet.out.store.expire(run_id, "w1", max_attempts=1)

    fleet.functions.append(durable("child")(child))
    run_id = await fleet.start(flow)
    submit = fleet.out.store.submit
    fleet.out.store.submit = arranged_late(fleet, run_id, submit, fail)  # type: ignore[assignment, method-assign]
    await fleet.work()
    [step] = await fleet.out.store.journal(run_id)
    assert step.wait is not None
    assert (await fleet.run(run_id)).status is RunStatus.FAILED
    await fleet.until(str(step.wait.name), RunStatus.CANCELED)
