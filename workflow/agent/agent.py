"""The agent: think, act, until the model has nothing more to do.

Every model turn and every tool call is a durable step, so that the loop itself keeps no state worth saving: after a
crash it runs again from its first line, and finished steps answer at once. A step reads the conversation and returns
what it adds; the loop alone adds it, or has an older part summed up when the model's context fills.
"""

import asyncio
import itertools
from collections.abc import Coroutine, Sequence
from typing import Any

from shared.links import PortLinks
from shared.tasks import cancel
from shared.threads.attempt import Attempt, Change
from shared.threads.steps import tool_step
from shared.threads.types import NewEvent, Run
from shared.types import JSON, EventType
from workflow.agent.act import ToolCaller
from workflow.agent.ask import Asker
from workflow.agent.budget import RunBudget
from workflow.agent.compact import Compactor
from workflow.agent.context import Window, system_message, user_message
from workflow.agent.conversation import Conversation
from workflow.agent.inbox import Inbox
from workflow.agent.sandbox import ThreadSandbox
from workflow.agent.think import Thinker, llm_step
from workflow.engine.journal import Journal
from workflow.engine.step import Step
from workflow.llm.types import Model, ModelRequest, ModelResponse
from workflow.runtime import Runtime
from workflow.tool.mcp import McpTool


async def run_agent(attempt: Attempt, step: Step, runtime: Runtime) -> JSON:
    """The agent flow of one attempt. Returns the data of `run.completed`: output, usage, cost.

    Raises AppError (a budget, the model's or the sandbox's failure), Fenced.
    """
    budget = RunBudget(attempt.run, runtime.budgets, runtime.settings)
    servers = (attempt.run.definition or {}).get("mcp_servers", {})
    try:
        async with runtime.workspace_tools.of_servers(servers) as of_servers:
            agent, conversation = await _prepared(attempt, step, runtime, budget, of_servers)
            return await agent.run(conversation)
    finally:
        # Whoever cancels the run need not wait for it: it ends by itself.
        await asyncio.shield(budget.close())


async def _prepared(
    attempt: Attempt, step: Step, runtime: Runtime, budget: RunBudget, of_servers: Sequence[McpTool]
) -> tuple["Agent", Conversation]:
    settings, parameters, definition = runtime.settings, attempt.run.options, attempt.run.definition or {}
    model = runtime.model(attempt.run.model or parameters.get("model"))
    tools = runtime.tools(_tool_names(attempt.run, of_servers), definition.get("tools", ()), of_servers)
    messages = await _opening(attempt, model)
    system = system_message(settings, attempt.thread.context, prompt=definition.get("prompt"))
    request = ModelRequest(
        [],
        tools=tools.schemas(),
        temperature=parameters.get("temperature", settings.llm.temperature),
        max_output_tokens=settings.llm.max_output_tokens,
    )
    asker, window = Asker(step, model, runtime, budget), Window(model, settings, system, request.tools)
    links = PortLinks(runtime.redis, settings.api, attempt.thread.sandbox_of)
    sandbox = ThreadSandbox(attempt, runtime.sandboxes, provider_name=settings.sandbox.provider)
    caller = ToolCaller(step, tools, runtime, sandbox=sandbox, links=links, messages=messages, budget=budget)
    agent = Agent(
        budget,
        step.journal,
        inbox=Inbox(attempt, step),
        compactor=Compactor(
            step.journal, asker, budget, window, compact_at=settings.agent.compact_at, standing=caller.standing
        ),
        thinker=Thinker(asker, budget, window, system=system, request=request, coalesce_ms=settings.agent.coalesce_ms),
        caller=caller,
    )
    own = len(messages) + sum(known.messages for known in attempt.journal.values() if known.finished)
    return agent, Conversation(messages, own=own, others=max(0, len(attempt.messages) - own))


def _tool_names(run: Run, of_servers: Sequence[McpTool]) -> list[str] | None:
    """Those that it may use; None: all. Its agent's own servers' are its own, unless the request names others."""
    names: list[str] | None = run.options.get("tools")
    if names is None or run.parameters.get("tools") is not None:
        return names
    return [*names, *(tool.name for tool in of_servers)]


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


class Agent:
    """One run's loop."""

    def __init__(
        self,
        budget: RunBudget,
        journal: Journal,
        *,
        inbox: Inbox,
        compactor: Compactor,
        thinker: Thinker,
        caller: ToolCaller,
    ) -> None:
        self._budget = budget
        self._journal = journal
        self._inbox = inbox
        self._compactor = compactor
        self._thinker = thinker
        self._caller = caller

    async def run(self, conversation: Conversation) -> JSON:
        for turn in itertools.count(1):
            self._budget.check_turn(turn)
            conversation.extend(await self._inbox.take(turn))
            await self._compactor.make_room(turn, conversation)
            response = await self._thinker.think(turn, conversation)
            self._journal.follow([llm_step(turn)])
            conversation.add(response.as_message())
            if not response.tool_calls and not self._inbox.waiting:
                return {"output": response.content, **self._budget.bill()}
            conversation.extend(await self._act(response))
            self._journal.follow([tool_step(call.id) for call in response.tool_calls] or [llm_step(turn)])
        raise AssertionError("unreachable: itertools.count does not end")

    async def _act(self, response: ModelResponse) -> list[JSON]:
        calls = response.tool_calls
        self._caller.divide(calls)
        if all(self._caller.side_by_side(call) for call in calls):
            return await _together([self._caller.call(call) for call in calls])
        return [await self._caller.call(call) for call in calls]


async def _together(calls: Sequence[Coroutine[Any, Any, JSON]]) -> list[JSON]:
    """Their results in order. The first that raises ends the others, and its error comes out as it is."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancel(tasks)
