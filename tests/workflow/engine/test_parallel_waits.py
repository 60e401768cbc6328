"""Several waits of one flow, of which some are answered before the run could be released."""

import asyncio
from typing import Any

from shared.redis import connect
from shared.types import RunStatus
from tests.workflow.engine.test_flows import Fleet
from workflow.engine.step import Step


async def test_a_wait_answered_at_the_last_moment_leaves_the_run_waiting_for_the_others(redis_url: str) -> None:
    client = connect(redis_url, timeout_seconds=5, max_connections=50)
    fleet = Fleet(client)

    async def flow(step: Step, _: Any) -> Any:
        return await asyncio.gather(step.wait_for_event("mine"), step.wait_for_event("theirs"), step.publish("mine", 1))

    run_id = await fleet.start(flow)
    async with asyncio.timeout(5):
        await fleet.until(run_id, RunStatus.WAITING)
    await fleet.publish("theirs", 2)
    assert (await fleet.until(run_id, RunStatus.SUCCEEDED)).output == [1, 2, None]
    await client.aclose()
