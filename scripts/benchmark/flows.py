"""The durable function of `scripts.benchmark.waits`."""

from typing import Any

from workflow.engine.durable import durable
from workflow.engine.step import Step


@durable("bench_wait")
async def bench_wait(step: Step, input: Any) -> Any:
    return await step.wait_for_event("bench", key=input)
