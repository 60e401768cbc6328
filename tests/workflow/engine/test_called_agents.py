"""Agents of the catalogue that runs call: as they are then, in the bounds of whoever calls them."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.catalogue.agents import AgentCatalogue
from shared.config import AgentsSettings, Settings
from shared.db import agents
from shared.db.agents import Agent, AgentStatus
from shared.db.engine import Database
from shared.errors import AppError, ErrorCode
from shared.events.outside import Outside
from shared.ids import new_id, new_run_id, new_thread_id
from shared.tenant import Tenant
from shared.threads.types import NewRun, NewThread, Run
from shared.types import AGENT_HOOKS, JSON, Runnable, RunStatus
from shared.workers.catalogue import Catalogue, DefinitionCard, tell_catalogue
from shared.workers.tools import ToolCard, tell_tools
from tests.workflow.agent.test_delegate import Books, children_of, delegate, results_of, run_of, work
from tests.workflow.agent.test_delegate import runtime_of as delegating
from tests.workflow.support import a_runtime, outside, turn
from workflow.engine.durable import durable
from workflow.engine.step import Step
from workflow.llm.types import ModelRequest

FLOW: JSON = {"runnable_type": Runnable.FUNCTION, "runnable_id": "flow"}
SAYING = {"Say it.": [turn("It is said.")]}


class Reading(Books):
    """Keeps the prompts that it reads."""

    prompts: list[str]

    async def stream(self, request: ModelRequest) -> Any:
        self.prompts = [*getattr(self, "prompts", []), request.messages[0]["content"]]
        async for item in super().stream(request):
            yield item


@pytest.fixture
async def out(client: Redis, database: Database) -> Outside:
    cards = [DefinitionCard("plain", "Plain.", "builtin", tools=["look", "keyed"], limits={"max_turns": 3})]
    await tell_catalogue(client, Catalogue("0", cards))
    await tell_tools(client, [ToolCard(name, name, "custom", "none", True, {}) for name in ("look", "keyed")])
    return replace(outside(client), agents=AgentCatalogue(Settings(), client, database))


async def an_agent(database: Database, **fields: Any) -> Agent:
    now = datetime.now(UTC)
    given = {"status": AgentStatus.ACTIVE, "prompt": "You say.", **fields}
    async with database.begin() as c:
        return await agents.add(c, Agent(new_id(), "default", "plain", "A", now, now, **given))


async def begun(out: Outside, *, project: str | None = None, **fields: Any) -> str:
    thread = new_thread_id()
    await out.store.create_thread(NewThread(thread, "default", project=project))
    run_id = new_run_id(thread)
    await out.store.submit(NewRun(run_id, "default", **fields), queued={})
    await out.ring(run_id)
    return run_id


async def called(
    out: Outside, client: Redis, runnable: str, *, project: str | None = None, model: Reading | None = None, **more: Any
) -> tuple[Run, Run | None]:
    """A function's run that calls it, at its end, and the called one's."""

    async def flow(step: Step, _: Any) -> Any:
        return await step.call(runnable, "Say it.", **more)

    run_id = await begun(out, project=project, input={"input": None}, **FLOW)
    await work(out, client, a_runtime(model or Reading(SAYING), functions=[durable("flow")(flow)], client=client))
    children = await children_of(out, run_id)
    return await run_of(out, run_id), await out.store.run(children[0]) if children else None


async def test_a_function_calls_an_agent_as_it_is_then(out: Outside, client: Redis, database: Database) -> None:
    agent = await an_agent(database, temperature=0.5, limits={"max_turns": 2}, permissions=["look: deny"])
    model = Reading(SAYING)
    run, child = await called(out, client, f"agent:{agent.id}", model=model, parameters={"max_turns": 9})
    assert (run.status, run.output) == (RunStatus.SUCCEEDED, "It is said.")
    assert child is not None
    assert (child.runnable_id, (child.definition or {})["agent_id"]) == (agent.id, agent.id)
    assert (child.options["max_turns"], child.options["temperature"]) == (9, 0.5)
    assert (child.definition or {})["permissions"] == [["look: deny"]]
    assert model.prompts == ["You say."]
    thread = await out.store.thread(child.thread_id)
    assert thread is not None
    assert thread.agent == agent.id


async def test_a_kind_of_agents_can_be_called_too(out: Outside, client: Redis) -> None:
    _, child = await called(out, client, "agent:plain")
    assert child is not None
    assert (child.definition or {})["definition"] == "plain"
    assert child.options["tools"] == ["look", "keyed"]


@pytest.mark.parametrize(
    ("fields", "project", "code"),
    [
        ({"status": AgentStatus.INACTIVE}, None, ErrorCode.CONFLICT),
        ({"status": AgentStatus.SHUTDOWN}, None, ErrorCode.CONFLICT),
        ({"tools": ["gone"]}, None, ErrorCode.CONFLICT),
        ({"definition": "gone"}, None, ErrorCode.CONFLICT),
        ({}, "p", ErrorCode.NOT_FOUND),
    ],
    ids=["inactive", "shutdown", "tool", "kind", "another project"],
)
async def test_an_agent_that_takes_no_runs_is_not_called(  # noqa: PLR0917 - as pytest calls it
    out: Outside, client: Redis, database: Database, fields: JSON, project: str | None, code: ErrorCode
) -> None:
    agent = await an_agent(database)
    async with database.begin() as c:
        await agents.change(c, agent, fields) if fields else None
    run, child = await called(out, client, f"agent:{agent.id}", project=project)
    assert (run.status, (run.error or {})["code"], child) == (RunStatus.FAILED, code, None)


@pytest.mark.parametrize("name", ["agent:nobody", "agent:01m800tbt1d5rvqzcjy0enx62f", "agent:../../x"])
async def test_what_is_not_there_is_not_called(out: Outside, client: Redis, name: str) -> None:
    run, child = await called(out, client, name)
    assert ((run.error or {})["code"], child) == (ErrorCode.NOT_FOUND, None)


async def test_an_agent_whose_hooks_have_not_succeeded_is_not_called(
    out: Outside, client: Redis, database: Database
) -> None:
    thread = new_thread_id()
    await out.store.create_thread(NewThread(thread, "default"))
    hooks = new_run_id(thread)
    new = NewRun(hooks, "default", {"input": None}, runnable_type=Runnable.FUNCTION, runnable_id=AGENT_HOOKS)
    await out.store.submit(new, queued={})
    agent = await an_agent(database, hook_thread=thread, hook_run=hooks)
    run, _ = await called(out, client, f"agent:{agent.id}")
    assert "still being activated" in (run.error or {})["detail"]


async def test_agents_that_are_turned_off_are_not_called(out: Outside, client: Redis, database: Database) -> None:
    off = replace(out, agents=AgentCatalogue(Settings(agents=AgentsSettings(enabled=False)), client, database))
    run, _ = await called(off, client, "agent:plain")
    assert (run.error or {})["code"] == ErrorCode.NOT_IMPLEMENTED


async def test_no_kind_is_said_to_be_missing_while_no_worker_has_told_of_any(out: Outside, client: Redis) -> None:
    await client.delete(keys.CATALOGUE)
    assert out.agents is not None
    with pytest.raises(AppError) as refused:
        await out.agents.definition(Tenant("default"), "plain")
    assert refused.value.code is ErrorCode.UNAVAILABLE


class Away(AgentCatalogue):
    """A database that is away at first."""

    asked = 0

    async def definition(self, tenant: Tenant, name: str) -> tuple[JSON, Agent | None]:
        Away.asked += 1
        if Away.asked <= 2:
            raise AppError(ErrorCode.UNAVAILABLE, "The SQL database does not answer.")
        return await super().definition(tenant, name)


async def test_a_run_waits_for_a_database_that_is_away_and_asks_it_only_before_the_birth(
    out: Outside, client: Redis, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflow.engine.children.ASK_AGAIN_SECONDS", 0.01)
    Away.asked = 0
    away = replace(out, agents=Away(Settings(), client, database))
    run, _ = await called(away, client, "agent:plain")
    assert run.status is RunStatus.SUCCEEDED
    assert run.epoch > 1
    assert Away.asked == 4  # twice in vain, to look, and for the birth


async def test_a_delegate_of_the_catalogue_has_no_more_than_whoever_gives_it_work(
    out: Outside, client: Redis, database: Database
) -> None:
    agent = await an_agent(database, limits={"max_turns": 2}, permissions=["look: ask"], mcp_servers={"t": {}})
    book = {"Task": [turn("", delegate("a", "Say it.", agent=agent.id)), turn("Done.")], **SAYING}
    model = Reading(book)
    definition = {"parameters": {"tools": ["delegate", "look"], "max_turns": 7}, "permissions": [["keyed: deny"]]}
    run_id = await begun(out, input={"task": "Task"}, definition=definition)
    await work(out, client, delegating(model, client))
    run = await run_of(out, run_id)
    [said] = await results_of(out, run)
    assert said["content"] == "It is said."
    [child_id] = await children_of(out, run_id)
    child = await run_of(out, child_id)
    assert model.offered["Say it."] == ["look"]
    assert model.prompts[1] == "You say."
    assert child.options["max_turns"] == 2
    assert (child.definition or {})["permissions"] == [["keyed: deny"], ["look: ask"]]
    assert "mcp_servers" not in (child.definition or {})


async def test_a_delegate_that_is_not_there_is_told_to_the_model(out: Outside, client: Redis) -> None:
    book = {"Task": [turn("", delegate("a", "Say it.", agent="nobody")), turn("Done.")]}
    run_id = await begun(out, input={"task": "Task"})
    await work(out, client, delegating(Reading(book), client))
    run = await run_of(out, run_id)
    [said] = await results_of(out, run)
    assert (run.status, "There is no agent nobody" in said["content"]) == (RunStatus.SUCCEEDED, True)
