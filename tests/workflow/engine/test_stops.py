"""What stops an attempt is the worker's affair: whatever a flow makes of it, nothing of that is recorded."""
# ruff: noqa: BLE001 -- flows may catch what they like

import asyncio
import contextlib
from typing import Any

import pytest

from shared.types import RunStatus, StepStatus
from tests.workflow.fleet import Fleet
from workflow.engine.durable import durable
from workflow.engine.step import Step
from workflow.runner import Runner, Signals


async def ok() -> str:
    return "ok"


async def catches(step: Step, _: Any) -> Any:
    try:
        return await step.do("second", ok)
    except Exception:
        return "compensated"


async def catches_everything(step: Step, _: Any) -> Any:
    try:
        return await step.do("second", ok)
    except BaseException:
        return "compensated"


async def catches_inside_a_step(step: Step, _: Any) -> Any:
    async def outer() -> Any:
        return await step.do("second", ok)

    try:
        return await step.do("outer", outer)
    except Exception:
        return "compensated"


async def catches_a_group(step: Step, _: Any) -> Any:
    try:
        async with asyncio.TaskGroup() as group:
            second = group.create_task(step.do("second", ok))
    except ExceptionGroup:
        return "compensated"
    return second.result()


async def asks_somebody(step: Step, _: Any) -> Any:
    try:
        return await step.do("second", ok)
    except BaseException:
        return await step.approve("The second step failed. What now?")


@pytest.mark.parametrize(
    "rest",
    [catches, catches_everything, catches_inside_a_step, catches_a_group, asks_somebody],
    ids=lambda rest: rest.__name__,
)
async def test_a_draining_worker_gives_a_run_back_whatever_its_flow_catches(fleet: Fleet, rest: Any) -> None:
    signals = Signals()

    async def flow(step: Step, input: Any) -> Any:
        async def first() -> None:
            signals.draining.set()

        await step.do("first", first)
        return await rest(step, input)

    run_id = await fleet.start(flow)
    assert await fleet.runner.execute(run_id, "w1", signals) == run_id
    assert (await fleet.run(run_id)).status is RunStatus.PENDING
    assert [step.key for step in await fleet.out.store.journal(run_id) if step.finished or step.wait] == ["first"]
    assert (await fleet.until(run_id, RunStatus.SUCCEEDED)).output == "ok"


async def test_a_drain_waits_for_the_steps_beside_the_one_that_it_refuses(fleet: Fleet) -> None:
    signals, gate, effects = Signals(), asyncio.Event(), []

    async def flow(step: Step, _: Any) -> Any:
        async def slow() -> str:
            await gate.wait()
            effects.append("slow")
            return "slow"

        async def one_after_the_other() -> str:
            await step.do("quick", drain)
            return str(await step.do("refused", ok))

        async def drain() -> None:
            signals.draining.set()

        return await asyncio.gather(step.do("slow", slow, repeat=False), one_after_the_other())

    run_id = await fleet.start(flow)
    attempt = asyncio.create_task(fleet.runner.execute(run_id, "w1", signals))
    await asyncio.wait_for(signals.draining.wait(), 5)
    done, _ = await asyncio.wait([attempt], timeout=0.1)
    assert not done
    gate.set()
    assert await asyncio.wait_for(attempt, 5) == run_id
    assert (await fleet.until(run_id, RunStatus.SUCCEEDED)).output == ["slow", "ok"]
    assert effects == ["slow"]


async def test_a_drain_refuses_a_step_inside_a_step_at_once(fleet: Fleet) -> None:
    signals = Signals()

    async def flow(step: Step, _: Any) -> Any:
        async def outer() -> str:
            signals.draining.set()
            return str(await step.do("inner", ok))

        return await step.do("outer", outer)

    run_id = await fleet.start(flow)
    assert await asyncio.wait_for(fleet.runner.execute(run_id, "w1", signals), 5) == run_id
    assert (await fleet.until(run_id, RunStatus.SUCCEEDED)).output == "ok"


async def hangs_and_fails_otherwise() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise OSError("the connection is closed")


async def hangs_and_gives_something() -> str:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    return "half of it"


def flow_of(body: Any, begun: asyncio.Event) -> Any:
    async def flow(step: Step, _: Any) -> Any:
        async def noted() -> Any:
            begun.set()
            return await body()

        try:
            return await step.do("work", noted)
        except BaseException:
            await step.do("compensate", ok)
            raise ValueError("the work failed") from None

    return flow


async def stopped(fleet: Fleet, body: Any, stop: Any) -> str:
    """A run that was stopped in the middle of the body."""
    begun, signals = asyncio.Event(), Signals()
    run_id = await fleet.start(flow_of(body, begun))
    runner = fleet.runner
    attempt = asyncio.create_task(runner.execute(run_id, "w1", signals))
    await asyncio.wait_for(begun.wait(), 5)
    await stop(runner, signals, run_id)
    await attempt
    return run_id


BODIES = [hangs_and_fails_otherwise, hangs_and_gives_something]


@pytest.mark.parametrize("body", BODIES)
async def test_a_step_cut_off_at_a_drains_end_is_neither_done_nor_failed(fleet: Fleet, body: Any) -> None:
    async def drain(_: Runner, signals: Signals, __: str) -> None:
        signals.draining.set()
        signals.out_of_time.set()

    run_id = await stopped(fleet, body, drain)
    assert (await fleet.run(run_id)).status is RunStatus.PENDING
    assert [step for step in await fleet.out.store.journal(run_id) if step.finished] == []


@pytest.mark.parametrize("body", BODIES)
async def test_a_canceled_run_ends_canceled_whatever_its_flow_makes_of_it(fleet: Fleet, body: Any) -> None:
    async def cancel(runner: Runner, _: Signals, run_id: str) -> None:
        await fleet.out.store.cancel(run_id, reason="test")
        runner.cancel(run_id)

    run_id = await stopped(fleet, body, cancel)
    assert (await fleet.run(run_id)).status is RunStatus.CANCELED
    assert {step.status for step in await fleet.out.store.journal(run_id)} <= {StepStatus.CANCELED}


@pytest.mark.parametrize("body", BODIES)
async def test_a_worker_that_lost_its_lease_records_nothing_of_what_it_cut_off(fleet: Fleet, body: Any) -> None:
    async def drop(runner: Runner, _: Signals, __: str) -> None:
        runner.drop("w1")

    run_id = await stopped(fleet, body, drop)
    assert (await fleet.run(run_id)).status is RunStatus.RUNNING
    assert [step for step in await fleet.out.store.journal(run_id) if step.finished] == []


async def test_a_flow_that_is_canceled_by_itself_fails(fleet: Fleet) -> None:
    async def flow(_: Step, __: Any) -> Any:
        other = asyncio.create_task(asyncio.Event().wait())
        other.cancel()
        await other

    run = await fleet.until(await fleet.start(flow), RunStatus.FAILED)
    assert run.error is not None
    assert run.error["code"] == "run_crashed"


async def test_an_attempt_that_is_over_leaves_the_children_alone_whatever_its_flow_catches(fleet: Fleet) -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    async def child(step: Step, _: Any) -> Any:
        return await step.wait_for_event("go")

    async def flow(step: Step, _: Any) -> Any:
        async def work() -> None:
            begun.set()
            await gate.wait()

        async with asyncio.TaskGroup() as group:
            called = group.create_task(step.call("function:child"))
            group.create_task(step.do("work", work))
        return called.result()

    fleet.functions.append(durable("child")(child))
    run_id = await fleet.start(flow)
    zombie = asyncio.create_task(fleet.runner.execute(run_id, "w1", Signals()))
    await asyncio.wait_for(begun.wait(), 5)
    await until_called(fleet, run_id)
    await fleet.out.store.expire(run_id, "w1", max_attempts=9)
    assert await fleet.out.store.claim(run_id, "w2", "c")
    gate.set()
    await zombie
    [called] = [step for step in await fleet.out.store.journal(run_id) if step.wait]
    assert called.wait is not None
    assert not (await fleet.run(str(called.wait.name))).cancel_requested


async def until_called(fleet: Fleet, run_id: str) -> None:
    async def born() -> bool:
        called = [step.wait.name for step in await fleet.out.store.journal(run_id) if step.wait]
        return bool(called and await fleet.out.store.run(str(called[0])))

    async with asyncio.timeout(5):
        while not await born():
            await asyncio.sleep(0.01)


async def test_a_function_may_take_max_seconds_of_a_workers_time_and_no_more(fleet: Fleet) -> None:
    async def flow(step: Step, _: Any) -> Any:
        await step.sleep(1.6)  # waits without a worker: does not count
        try:
            await step.do("hang", asyncio.Event().wait)
        except BaseException:
            raise ValueError("no luck") from None

    fleet.functions.append(durable("flow")(flow))
    run_id = await fleet.submit("flow", None, max_seconds=1.5)
    run = await fleet.until(run_id, RunStatus.FAILED)
    assert run.error is not None
    assert run.error["code"] == "budget_exhausted"
    assert "1.5 s" in run.error["detail"]
    assert (run.epoch, [step.key for step in await fleet.out.store.journal(run_id) if step.finished]) == (2, ["sleep"])
