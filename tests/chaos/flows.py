"""The durable functions of a chaos run. Workers import them (`workflow.modules`); their effects go to the ledger."""

import asyncio
import os
from typing import Any

from tests.chaos.control import folder
from tests.chaos.ledger import Ledger
from workflow.engine.durable import durable
from workflow.engine.retry import Retry
from workflow.engine.scope import StepScope
from workflow.engine.step import Step

VERSION = "CHAOS_VERSION"
"""The environment variable that says which release of this module a worker has."""


REPORT = "x" * 70_000
"""Above `payloads.inline_bytes`: kept by reference."""


async def report() -> str:
    return REPORT


@durable("part")
async def part(step: Step, input: dict[str, Any]) -> Any:
    """A child of `order`: tells its parent by an event, and by its output."""

    async def work() -> str:
        Ledger(folder()).do_blind(f"look:{input['op']}")
        return "made"

    await step.do("work", work, retry=Retry(3, backoff_seconds=0.1))
    await step.sleep(0.3)
    await step.publish("part", input["op"], key=input["op"])
    return await step.do("report", report)


async def _order(step: Step, input: dict[str, Any]) -> Any:
    op = input["op"]
    ledger = Ledger(folder())

    async def charge(scope: StepScope) -> str:
        await asyncio.sleep(0.05)
        ledger.do_keyed(f"{op}:charge", scope.effect_key)
        return "charged"

    async def send() -> str:
        await asyncio.sleep(0.05)
        ledger.do_blind(f"{op}:send")
        return "sent"

    await step.do("charge", charge, input=op)
    await step.sleep(input["seconds"])
    paid = await step.wait_for_event("paid", key=op)
    await step.do("send", send, repeat=False)
    first, second, told = await asyncio.gather(
        step.call("function:part", {"op": f"{op}-a"}, name="a"),
        step.call("function:part", {"op": f"{op}-b"}, name="b"),
        step.wait_for_event("part", key=f"{op}-a"),
    )
    if [first, second] != [REPORT, REPORT]:
        raise AssertionError("a part's report is not whole")
    approved = await step.approve({"op": op}, timeout=600) if input["approve"] else None
    await step.emit("progress", {"op": op})
    return [paid, told, approved]


@durable("order", version=1)
async def order(step: Step, input: dict[str, Any]) -> Any:
    return await _order(step, input)


if os.environ.get(VERSION) == "2":

    @durable("order", version=2)
    async def order_of_the_next_release(step: Step, input: dict[str, Any]) -> Any:
        async def check() -> str:
            return "checked"

        await step.do("check", check)
        return await _order(step, input)
