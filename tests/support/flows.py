"""Durable functions for tests of whole stacks: `TRUNKLINE__WORKFLOW__MODULES='["tests.support.flows"]'`."""

from typing import Any

from workflow.engine.durable import durable
from workflow.engine.step import Step


@durable("ask")
async def ask(step: Step, input: Any) -> Any:
    return await step.approve(input, name="question")


@durable("nap")
async def nap(step: Step, input: Any) -> Any:
    await step.sleep(input)
    return "awake"


@durable("expect")
async def expect(step: Step, input: Any) -> Any:
    return await step.wait_for_event(input["name"], key=input.get("key"))


@durable("count")
async def count(step: Step, input: Any) -> Any:
    """Many small steps."""

    async def add() -> int:
        return 1

    return sum([await step.do("add", add) for _ in range(input)])
