"""Calls that the rules forbid, and calls that a human is asked about: in whole runs, and when the rules change."""

import asyncio
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from redis.asyncio import Redis

from modem.agenda import Agenda
from shared.config import ToolsSettings
from shared.events.outside import Outside
from shared.ids import SHARDS
from shared.permissions import Subject
from shared.threads.steps import Answer
from shared.threads.types import Run
from shared.types import RunStatus, StepStatus, WaitKind
from tests.workflow.agent.support import execute, new_thread, submit
from tests.workflow.support import Ledger, LedgerTool, NoArgs, Playbook, a_runtime, turn
from workflow.runtime import Runtime
from workflow.tool.base import Effect
from workflow.tool.registry import Registry

BOOK = [turn("I act.", ("a", "keyed", "{}"), ("b", "look", "{}")), turn("Done.")]
ASK = ["keyed: ask"]


def runtime_of(client: Redis, ledger: Ledger, rules: list[str], **tools: Any) -> Runtime:
    return a_runtime(Playbook(BOOK), ledger, client=client, tools=ToolsSettings(permissions=rules, **tools))


async def results_of(out: Outside, run: Run) -> dict[str, str]:
    messages = await out.store.messages(run.thread_id)
    return {message["tool_call_id"]: message["content"] for message in messages if message["role"] == "tool"}


async def answered(out: Outside, run_id: str, output: Any, call_id: str = "a", name: str = "keyed") -> None:
    [step] = [step for step in await out.store.journal(run_id) if step.open]
    assert step.wait is not None
    assert step.wait.request == {"tool_call_id": call_id, "name": name, "arguments": "{}"}
    answer = Answer(StepStatus.SUCCEEDED, result=output)
    assert await out.store.signal(run_id, step.key, answer, [WaitKind.HUMAN])


async def asked(out: Outside, client: Redis, ledger: Ledger, **tools: Any) -> str:
    """A run that waits for a human."""
    run_id = await submit(out, await new_thread(out))
    run = await execute(out, runtime_of(client, ledger, ASK, **tools), run_id)
    assert run.status is RunStatus.WAITING
    assert not ledger.effects
    return run_id


async def test_what_is_denied_is_not_called_and_the_model_told_by_which_rule(out: Outside, client: Redis) -> None:
    ledger = Ledger()
    run_id = await submit(out, await new_thread(out))
    run = await execute(out, runtime_of(client, ledger, ["key*: deny"]), run_id)
    results = await results_of(out, run)
    assert run.status is RunStatus.SUCCEEDED
    assert results["a"].startswith("keyed was not called: the rule `key*: deny` forbids this call.")
    assert results["b"] == "look done"
    assert list(ledger.effects) == [f"{run_id}/tool:b"]


@pytest.mark.parametrize(
    ("settings", "agent", "run"),
    [([], ["keyed: deny"], ["keyed: allow"]), (["keyed: deny"], ["keyed: allow"], ["*: allow"])],
    ids=["its own", "the operator's"],
)
async def test_what_an_agent_forbids_no_request_allows_and_what_the_settings_forbid_no_agent(
    out: Outside, client: Redis, settings: list[str], agent: list[str], run: list[str]
) -> None:
    ledger = Ledger()
    definition = {"parameters": {}, "permissions": [agent]}
    run_id = await submit(out, await new_thread(out), definition=definition, parameters={"permissions": run})
    ended = await execute(out, runtime_of(client, ledger, settings), run_id)
    assert "the rule `keyed: deny` forbids" in (await results_of(out, ended))["a"]


class Unread(LedgerTool):
    name: ClassVar[str] = "keyed"
    effect: ClassVar[Effect] = Effect.REPEATABLE

    def subjects(self, args: NoArgs) -> list[Subject]:
        raise AssertionError("nobody needs them")


async def test_what_a_call_is_about_is_worked_out_only_for_rules_of_its_tool(out: Outside, client: Redis) -> None:
    ledger = Ledger()
    runtime = runtime_of(client, ledger, ["look: deny"])
    run_id = await submit(out, await new_thread(out))
    run = await execute(out, replace(runtime, all_tools=Registry([Unread(ledger)])), run_id)
    assert (await results_of(out, run))["a"] == "keyed done"


async def test_a_run_can_forbid_more_than_the_configuration_and_not_less(out: Outside, client: Redis) -> None:
    ledger = Ledger()
    run_id = await submit(out, await new_thread(out), parameters={"permissions": ["keyed: allow", "look: deny"]})
    run = await execute(out, runtime_of(client, ledger, ["keyed: deny"]), run_id)
    assert all("was not called" in text for text in (await results_of(out, run)).values())
    assert not ledger.effects


@pytest.mark.parametrize("yes", [True, "Yes", {"approved": True}])
async def test_what_is_approved_is_called(out: Outside, client: Redis, yes: Any) -> None:
    ledger = Ledger()
    run_id = await asked(out, client, ledger)
    await answered(out, run_id, yes)
    run = await execute(out, runtime_of(client, ledger, ASK), run_id)
    assert (await results_of(out, run))["a"] == "keyed done"
    assert ledger.effects[f"{run_id}/tool:a"] == 1


@pytest.mark.parametrize(
    ("no", "words"),
    [
        (False, "They gave no reason"),
        ({"approved": False}, "They gave no reason"),
        (None, "They gave no reason"),
        ("Use the test account.", "They say: Use the test account."),
        ({"approved": False, "comment": "Not on Friday."}, "They say: Not on Friday."),
        ({"approved": "yes"}, "They gave no reason"),
    ],
)
async def test_what_is_refused_is_not_called_and_the_model_reads_the_humans_words(
    out: Outside, client: Redis, no: Any, words: str
) -> None:
    ledger = Ledger()
    run_id = await asked(out, client, ledger)
    await answered(out, run_id, no)
    run = await execute(out, runtime_of(client, ledger, ASK), run_id)
    assert run.status is RunStatus.SUCCEEDED
    told = (await results_of(out, run))["a"]
    assert told.startswith("keyed was not called: a human was asked and refused.")
    assert words in told
    assert f"{run_id}/tool:a" not in ledger.effects


async def test_nobody_answering_in_time_is_a_refusal(out: Outside, client: Redis) -> None:
    ledger = Ledger()
    run_id = await asked(out, client, ledger, ask_seconds=0.05)
    async with asyncio.timeout(5):
        while any(step.open for step in await out.store.journal(run_id)):
            await Agenda(out).tick(range(SHARDS))
            await asyncio.sleep(0.01)
    run = await execute(out, runtime_of(client, ledger, ASK), run_id)
    assert "did not answer in time" in (await results_of(out, run))["a"]


@pytest.mark.parametrize(
    ("later", "called"), [([], True), (["*: allow"], True), (["keyed: ask x*"], True), (["keyed: deny"], False)]
)
async def test_rules_that_change_while_a_run_waits_break_nothing(
    out: Outside, client: Redis, later: list[str], called: bool
) -> None:
    ledger = Ledger()
    run_id = await asked(out, client, ledger)
    await answered(out, run_id, True)
    run = await execute(out, runtime_of(client, ledger, later), run_id)
    assert run.status is RunStatus.SUCCEEDED
    assert (f"{run_id}/tool:a" in ledger.effects) is called


@pytest.mark.parametrize("later", [["*: deny"], ["*: ask"], ASK])
async def test_rules_that_come_after_a_call_do_not_touch_it(out: Outside, client: Redis, later: list[str]) -> None:
    """The first call is done and recorded while the second one waits for a human."""
    ledger = Ledger()
    run_id = await submit(out, await new_thread(out))
    await execute(out, runtime_of(client, ledger, ["look: ask"]), run_id)
    await answered(out, run_id, True, "b", "look")
    run = await execute(out, runtime_of(client, ledger, later), run_id)
    assert run.status is RunStatus.SUCCEEDED
    assert (await results_of(out, run))["a"] == "keyed done"
    assert ledger.effects[f"{run_id}/tool:a"] == 1
