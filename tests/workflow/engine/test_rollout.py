"""A release with other durable functions, rolled out worker by worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from modem.lease import Lease
from shared.config import RedisSettings, WorkerSettings
from shared.errors import ErrorCode
from shared.keys import worker
from shared.redis import connect
from shared.types import RunStatus
from tests.workflow.fleet import Fleet, as_any
from workflow.engine.durable import DurableFunction, Functions, durable
from workflow.engine.step import Step
from workflow.runner import Signals


async def _first(step: Step, _: Any) -> Any:
    return await step.wait_for_event("go")


async def _second(step: Step, _: Any) -> Any:
    await step.emit("news", {})
    return await step.wait_for_event("go")


OLD, NEW = durable("f", version=1)(_first), durable("f", version=2)(_second)


class Rollout:
    """The fleet's own worker, and the registered worker of another release."""

    def __init__(self, fleet: Fleet, redis_url: str) -> None:
        self.fleet = fleet
        self._redis_url = redis_url

    @asynccontextmanager
    async def beside(self, *functions: DurableFunction) -> AsyncIterator[None]:
        lease = Lease(WorkerSettings(), RedisSettings(url=self._redis_url), "beside")
        await asyncio.to_thread(lease.start, lambda _: None, Functions(functions).had)
        try:
            yield
        finally:
            await asyncio.to_thread(lease.stop)


@pytest.fixture
async def rollout(redis_url: str) -> AsyncIterator[Rollout]:
    client = connect(redis_url, timeout_seconds=5, max_connections=50)
    yield Rollout(Fleet(client), redis_url)
    await client.aclose()


async def test_a_run_of_a_newer_version_is_left_to_the_workers_that_have_it(rollout: Rollout) -> None:
    fleet = rollout.fleet
    fleet.functions = [OLD, NEW]
    run_id = await fleet.submit("f", None)
    await fleet.until(run_id, RunStatus.WAITING)
    fleet.functions = [OLD]
    async with rollout.beside(OLD, NEW):
        await fleet.publish("go", "now")
        assert await fleet.attempt()
        left = await fleet.run(run_id)
    assert (left.status, left.epoch) == (RunStatus.PENDING, 1)
    fleet.functions = [OLD, NEW]  # the next one that hears of it
    assert (await fleet.until(run_id, RunStatus.SUCCEEDED)).output == "now"


async def test_a_function_that_is_new_is_left_to_the_workers_that_have_it(rollout: Rollout) -> None:
    async with rollout.beside(NEW):
        run_id = await rollout.fleet.submit("f", None)
        assert await rollout.fleet.attempt()
        assert (await rollout.fleet.run(run_id)).epoch == 0


async def test_a_function_that_nobody_has_fails_its_run(rollout: Rollout) -> None:
    async with rollout.beside(NEW):
        run_id = await rollout.fleet.submit("g", None)
        failed = await rollout.fleet.until(run_id, RunStatus.FAILED)
    assert failed.error is not None
    assert failed.error["code"] == ErrorCode.NOT_FOUND


async def test_a_version_that_is_gone_everywhere_goes_on_in_the_newest(rollout: Rollout) -> None:
    fleet = rollout.fleet
    fleet.functions = [OLD]
    run_id = await fleet.submit("f", None)
    await fleet.until(run_id, RunStatus.WAITING)
    fleet.functions = [durable("f", version=3)(_first)]
    async with rollout.beside(*fleet.functions):
        await fleet.publish("go", "now")
        assert (await fleet.until(run_id, RunStatus.SUCCEEDED)).output == "now"


async def test_what_cannot_be_claimed_is_not_tried_again_at_once(rollout: Rollout) -> None:
    async with rollout.beside(NEW):
        [name] = await rollout.fleet.out.fleet.names()
        await as_any(rollout.fleet.client.hset(worker(name), "functions", "not JSON"))
        run_id = await rollout.fleet.submit("f", None)
        assert await rollout.fleet.runner.execute(run_id, "w1", Signals()) is None
        assert (await rollout.fleet.run(run_id)).status is RunStatus.PENDING
