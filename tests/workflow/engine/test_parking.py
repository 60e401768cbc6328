import asyncio
import itertools
from typing import Any

import pytest

from shared.threads.steps import StepRecord
from shared.types import RunStatus, StepStatus
from tests.workflow.fleet import Fleet
from workflow.engine.parking import Parking
from workflow.engine.step import Step


def a_step(key: str) -> StepRecord:
    return StepRecord(key, 1, key, "event", StepStatus.WAITING, "hash")


async def test_an_answer_for_a_branch_that_is_gone_leaves_the_others_waiting() -> None:
    parking = Parking()
    steps = [a_step(key) for key in ("gone", "going", "answered", "waiting")]
    gone, going, answered, waiting = (asyncio.create_task(parking.answered(step)) for step in steps)
    async with asyncio.timeout(20):
        await parking.idle.wait()
        gone.cancel()
        await asyncio.wait([gone])
        going.cancel()
        parking.answer(steps[:3])
        assert await answered == steps[2]
        await parking.idle.wait()
    assert parking.waiting == [steps[3]]
    parking.answer([steps[3]])
    assert await waiting == steps[3]


async def test_answers_for_nobody_leave_the_run_ready_to_wait() -> None:
    parking = Parking()
    waiting = asyncio.create_task(parking.answered(a_step("waiting")))
    async with asyncio.timeout(20):
        await parking.idle.wait()
        parking.answer([a_step("gone")])
        await parking.idle.wait()
    parking.answer(parking.waiting)
    await waiting


@pytest.mark.parametrize("fleet", [True], indirect=True)
async def test_a_parked_fleet_makes_an_attempt_for_each_step(fleet: Fleet) -> None:
    numbers = itertools.count(1)

    async def flow(step: Step, _: Any) -> Any:
        async def number() -> int:
            return next(numbers)

        return [await step.do("number", number) for _ in range(3)]

    run = await fleet.until(await fleet.start(flow), RunStatus.SUCCEEDED)
    assert (run.output, run.epoch, fleet.attempts) == ([1, 2, 3], 3, 3)
