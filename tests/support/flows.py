"""Durable functions for tests of whole stacks: `TRUNKLINE__WORKFLOW__MODULES='["tests.support.flows"]'`."""

import threading
from pathlib import Path
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


@durable("call_naps")
async def call_naps(step: Step, input: Any) -> Any:
    """A nap of its own between two children's."""
    first = await step.call(nap, input)
    await step.sleep(input)
    return [first, await step.call(nap, input)]


@durable("stop_the_loop_once")
async def stop_the_loop_once(step: Step, input: Any) -> Any:
    """The first worker that gets here never does anything again. `input`: a path for the mark that one has."""
    mark = Path(input)
    if not mark.exists():
        mark.touch()
        threading.Event().wait()
    return "went on"
