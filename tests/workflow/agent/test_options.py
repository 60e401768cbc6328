"""What a run's agent says of it is heeded, and what its request says goes before that."""

from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.budgets.types import Owner
from shared.config import AgentSettings, Settings
from shared.events.outside import Outside
from shared.ids import new_run_id
from shared.threads.types import NewRun
from shared.types import JSON, RunStatus
from tests.workflow.agent.support import Worker, execute, new_thread, runtime_of, submit
from tests.workflow.support import LookTool, Playbook, a_runtime, turn
from workflow.agent.budget import limits_of, seconds_limit
from workflow.llm.response_cache import InMemory
from workflow.llm.types import ModelRequest

DEFINITION: JSON = {"agent_id": "a", "definition": "coder", "version": 1, "prompt": "You count.", "sandbox": True}


def defined(**parameters: Any) -> JSON:
    return {**DEFINITION, "parameters": parameters}


async def first_request(out: Outside, client: Redis, definition: JSON, **parameters: Any) -> ModelRequest:
    model = Worker(1)
    run = await submit(out, await new_thread(out), definition=definition, parameters=parameters)
    runtime = runtime_of(model, client, agent=AgentSettings(system_prompt="You do as configured."))
    assert (await execute(out, runtime, run)).status is RunStatus.SUCCEEDED
    return next(iter(model.requests.values()))


async def test_an_agents_prompt_temperature_and_tools_are_used(out: Outside, client: Redis) -> None:
    request = await first_request(out, client, defined(temperature=0.3, tools=["dump"]))
    assert request.messages[0] == {"role": "system", "content": "You count."}
    assert request.temperature == 0.3
    assert [tool["function"]["name"] for tool in request.tools] == ["dump"]


async def test_what_the_request_says_goes_before_it(out: Outside, client: Redis) -> None:
    assert (await first_request(out, client, defined(temperature=0.3), temperature=0.9)).temperature == 0.9


async def test_what_an_agent_does_not_say_is_as_configured(out: Outside, client: Redis) -> None:
    request = await first_request(out, client, {"sandbox": True, "prompt": None, "parameters": {}})
    assert request.messages[0]["content"] == "You do as configured."


async def test_an_agents_limits_count_and_a_request_may_change_them(out: Outside, client: Redis) -> None:
    thread = await new_thread(out)
    given = defined(max_turns=2, max_cost=0.5, max_seconds=7)
    run = await execute(out, runtime_of(Worker(5), client), await submit(out, thread, definition=given))
    assert (run.error or {})["code"] == "budget_exhausted"
    assert limits_of(run, Settings())[Owner.RUN].cost == 0.5
    assert seconds_limit(run, Settings()) == 7
    more = await submit(out, thread, "Task 2", definition=given, parameters={"max_turns": 9})
    assert (await execute(out, runtime_of(Worker(5), client), more)).status is RunStatus.SUCCEEDED


async def test_a_cached_answer_is_asked_for_once_and_costs_the_second_run_nothing(out: Outside, client: Redis) -> None:
    model = Playbook([turn("Four.")])
    runtime = replace(a_runtime(model, client=client), responses=InMemory())
    runs = []
    for _ in range(2):
        thread = await new_thread(out)
        runs.append(await execute(out, runtime, await submit(out, thread, definition=defined(temperature=0))))
    assert [run.output for run in runs] == ["Four.", "Four."]
    assert [run.usage["output_tokens"] for run in runs] == [5, 0]


@pytest.mark.parametrize("allowed", [True, False])
async def test_an_agent_without_a_sandbox_gets_none_and_is_told_so(out: Outside, client: Redis, allowed: bool) -> None:
    class Wants(LookTool):
        async def run(self, args: Any, ctx: Any) -> Any:
            await ctx.sandbox()
            return await super().run(args, ctx)

    model = Playbook([turn("", ("c1", "look", "{}")), turn("Done.")])
    runtime = a_runtime(model, client=client)
    looks = next(tool for tool in runtime.all_tools.tools if tool.name == "look")
    looks.__class__ = Wants
    thread = await new_thread(out)
    run_id = new_run_id(thread)
    new = NewRun(run_id, "w", {"task": "x"}, definition={**defined(), "sandbox": allowed})
    await out.store.submit(new, queued={})
    await execute(out, runtime, run_id)
    said = [message["content"] for message in await out.store.messages(thread) if message["role"] == "tool"]
    assert any("You have no sandbox" in text for text in said) is not allowed
