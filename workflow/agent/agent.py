"""The agent: think, act, until the model has nothing more to do.

Every model turn and every tool call is a durable step, so that the loop itself keeps no state worth saving: after a
crash it runs again from its first line, and finished steps answer at once.
"""

import asyncio
import itertools
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from shared.errors import AppError, ErrorCode
from shared.tasks import cancel
from shared.threads.attempt import Attempt, Change
from shared.threads.types import NewEvent
from shared.types import JSON, EventType
from workflow.agent.act import ToolCaller
from workflow.agent.context import user_message
from workflow.agent.inbox import Inbox
from workflow.agent.think import Thinker
from workflow.engine.step import Step
from workflow.llm.types import NO_USAGE, Model, ModelResponse, Usage
from workflow.runtime import Runtime
from workflow.sandbox.base import Sandbox, SandboxProvider


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a run ends although its model would go on. `seconds` count from the run's start, `cost` is in USD."""

    turns: int
    seconds: float
    cost: float | None


async def run_agent(attempt: Attempt, step: Step, runtime: Runtime) -> JSON:
    """The agent flow of one attempt. Returns the data of `run.completed`: output, usage, cost.

    Raises AppError (a limit, the model's or the sandbox's failure), Drained, Fenced.
    """
    parameters = attempt.run.parameters
    settings = runtime.settings.agent
    limits = Limits(
        turns=parameters.get("max_turns", settings.max_turns),
        seconds=parameters.get("max_seconds", settings.max_seconds),
        cost=parameters.get("max_cost", settings.max_cost),
    )
    model = runtime.model(attempt.run.model or parameters.get("model"))
    messages = await _opening(attempt, model)
    tools = runtime.tools(parameters.get("tools"))
    caller = ToolCaller(step, tools, runtime, sandbox=ThreadSandbox(attempt, runtime.sandboxes), messages=messages)
    thinker = Thinker(step, model, tools, runtime, parameters=parameters, context=attempt.thread.context)
    agent = Agent(thinker, caller, Inbox(attempt, step), limits)
    try:
        async with asyncio.timeout(max(0.0, limits.seconds - attempt.run.elapsed_seconds)) as clock:
            return await agent.run(messages)
    except TimeoutError as error:
        if not clock.expired():
            raise
        raise AppError(
            ErrorCode.TIME_LIMIT,
            f"The run took longer than its {limits.seconds:g} s. Raise max_seconds, or ask for less at once.",
        ) from error


async def _opening(attempt: Attempt, model: Model) -> list[JSON]:
    """The conversation up to the run's task; its own steps come back from the journal. Commits the task once."""
    run = attempt.run
    if run.base is not None:
        return attempt.messages[: run.base + 1]
    message = user_message(await attempt.input())
    events = [NewEvent(EventType.AGENT_MESSAGE, message)]
    fields: dict[str, str | int | bytes] = {"base": len(attempt.messages), "model": model.name}
    await attempt.commit(Change(messages=[message], events=events, run=fields))
    return [*attempt.messages, message]


class ThreadSandbox:
    """The thread's sandbox, made or found at the first call; where it is found again is kept with the thread."""

    def __init__(self, attempt: Attempt, provider: SandboxProvider) -> None:
        self._attempt = attempt
        self._provider = provider
        self._sandbox: Sandbox | None = None
        self._making = asyncio.Lock()

    async def __call__(self) -> Sandbox:
        """Raises SandboxUnavailable, Fenced."""
        async with self._making:
            if self._sandbox is None:
                known = self._attempt.thread.sandbox
                sandbox = await self._provider.acquire(self._attempt.thread.sandbox_of, known)
                if sandbox.ref != known:
                    await self._attempt.commit(Change(thread={"sandbox": orjson.dumps(sandbox.ref)}))
                self._sandbox = sandbox
            return self._sandbox


class Agent:
    """One run's loop."""

    def __init__(self, thinker: Thinker, caller: ToolCaller, inbox: Inbox, limits: Limits) -> None:
        self._thinker = thinker
        self._caller = caller
        self._inbox = inbox
        self._limits = limits

    async def run(self, messages: list[JSON]) -> JSON:
        usage = NO_USAGE
        for turn in itertools.count(1):
            self._check(turn, usage)
            messages = [*messages, *await self._inbox.take(turn)]
            response = await self._thinker.think(turn, messages, usage)
            messages = [*messages, response.as_message()]
            usage += response.usage
            if not response.tool_calls and not self._inbox.waiting:
                return {"output": response.content, "usage": usage.as_json(), "cost": usage.cost}
            messages = [*messages, *await self._act(response)]
        raise AssertionError("unreachable: itertools.count does not end")

    async def _act(self, response: ModelResponse) -> list[JSON]:
        calls = response.tool_calls
        if all(self._caller.repeatable(call) for call in calls):
            return await _together([self._caller.call(call) for call in calls])
        return [await self._caller.call(call) for call in calls]

    def _check(self, turn: int, usage: Usage) -> None:
        if turn > self._limits.turns:
            raise AppError(
                ErrorCode.TURN_LIMIT,
                f"The model was not done after {self._limits.turns} turns. Raise max_turns, or ask for less at once.",
            )
        if self._limits.cost is not None and (usage.cost or 0) >= self._limits.cost:
            raise AppError(
                ErrorCode.COST_LIMIT, f"The run has cost its ${self._limits.cost:g}. Raise max_cost to let it go on."
            )


async def _together(calls: Sequence[Coroutine[Any, Any, JSON]]) -> list[JSON]:
    """Their results in order. The first that raises ends the others, and its error comes out as it is."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancel(tasks)
