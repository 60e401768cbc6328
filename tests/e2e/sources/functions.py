"""Durable functions of the scripts."""

from typing import Any

from workflow.engine.durable import durable
from workflow.engine.step import Step


@durable("news")
async def news(step: Step, input: Any) -> Any:
    """Source 002: work that is not done again, and a wait for an event."""

    async def fetch() -> str:
        return f"news of {input['day']}"

    fetched = await step.do("fetch", fetch)
    return [fetched, await step.wait_for_event("published", key=input["day"])]


@durable("release")
async def release(step: Step, input: Any) -> Any:
    """Source 003: a human's approval between two steps."""

    async def build() -> str:
        return f"{input['version']} is built"

    built = await step.do("build", build)
    return [built, await step.approve({"instructions": "May it go out?"}, name="may-it-go-out")]
