"""Agents that give work to others: child runs, waited for without a worker, whose end is a tool's result."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from modem.agenda import Agenda
from shared.config import AgentSettings
from shared.errors import ErrorCode
from shared.events.outside import Outside
from shared.ids import SHARDS
from shared.threads.types import Run
from shared.types import JSON, RunStatus, StepStatus
from tests.workflow.agent.support import mortal, new_thread, submit
from tests.workflow.fleet import as_any
from tests.workflow.support import Ledger, Playbook, a_runtime, turn
from workflow.agent.shares import Left
from workflow.llm.types import ModelRequest, ModelResponse, TextDelta, ThinkingDelta
from workflow.runner import Runner, Signals
from workflow.runtime import Runtime
from workflow.tool.delegate import DelegateTool


class Books(Playbook):
    """A model that has a book of turns for each task. `held`: tasks that wait until they are let go."""

    def __init__(self, books: Mapping[str, Sequence[ModelResponse]]) -> None:
        super().__init__([])
        self.books = books
        self.held: dict[str, asyncio.Event] = {}
        self.asked: list[str] = []
        self.offered: dict[str, list[str]] = {}

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ThinkingDelta | ModelResponse, None]:
        task = next(message["content"] for message in reversed(request.messages) if message["role"] == "user")
        self.asked.append(task)
        self.offered[task] = [tool["function"]["name"] for tool in request.tools]
        if task in self.held:
            await self.held[task].wait()
        self.turns = self.books[task]
        async for item in super().stream(request):
            yield item


def delegate(call_id: str, prompt: str, **more: Any) -> tuple[str, str, str]:
    return call_id, "delegate", orjson.dumps({"description": f"About {prompt}", "prompt": prompt, **more}).decode()


TWO = {
    "Task": [turn("Both.", delegate("a", "Left"), delegate("b", "Right")), turn("All is done.")],
    "Left": [turn("I look.", ("c", "look", "{}")), turn("Left is done.")],
    "Right": [turn("Right is done.")],
}


def runtime_of(model: Any, client: Redis, ledger: Ledger | None = None, **settings: Any) -> Runtime:
    runtime = a_runtime(model, ledger, client=client, **settings)
    return replace(runtime, all_tools=runtime.all_tools.plus([DelegateTool()]))


async def work(out: Outside, client: Redis, runtime: Runtime) -> None:
    """Whatever was rung for, and what follows from it, until nothing does."""
    while True:
        await Agenda(out).tick(range(SHARDS))
        run_id: str | None = await as_any(client.lpop("rung"))
        if run_id is None:
            return
        await out.ring(await Runner(out, runtime).execute(run_id, "w1", Signals()))


async def begin(out: Outside, task: str = "Task", **fields: Any) -> str:
    run_id = await submit(out, await new_thread(out), task, **fields)
    await out.ring(run_id)
    return run_id


async def run_of(out: Outside, run_id: str) -> Run:
    run = await out.store.run(run_id)
    assert run is not None
    return run


async def children_of(out: Outside, run_id: str) -> list[str]:
    return [str(step.wait.name) for step in await out.store.journal(run_id) if step.wait]


async def results_of(out: Outside, run: Run) -> list[JSON]:
    return [message for message in await out.store.messages(run.thread_id) if message["role"] == "tool"]


async def ended(out: Outside, client: Redis, model: Books, task: str = "Task", **fields: Any) -> tuple[Run, list[JSON]]:
    run_id = await begin(out, task, **fields)
    await work(out, client, runtime_of(model, client))
    run = await run_of(out, run_id)
    return run, await results_of(out, run)


async def test_the_parent_waits_without_a_worker_and_reads_only_the_final_answers(out: Outside, client: Redis) -> None:
    model = Books(TWO)
    run_id = await begin(out)
    runtime = runtime_of(model, client)
    await Runner(out, runtime).execute(str(await as_any(client.lpop("rung"))), "w1", Signals())
    assert (await run_of(out, run_id)).status is RunStatus.WAITING
    children = await children_of(out, run_id)
    assert [(await run_of(out, child)).status for child in children] == [RunStatus.PENDING] * 2
    await work(out, client, runtime)
    run = await run_of(out, run_id)
    assert (run.status, run.output) == (RunStatus.SUCCEEDED, "All is done.")
    results = await results_of(out, run)
    assert {each["tool_call_id"]: each["content"] for each in results} == {"a": "Left is done.", "b": "Right is done."}
    events = [orjson.loads(each.event) for each in await out.store.events_of(run, since=None, count=999)]
    told = [event for event in events if event["type"] in ("tool.request", "tool.response")]
    assert [event["type"] for event in told] == ["tool.request"] * 2 + ["tool.response"] * 2
    assert {event["data"]["data"]["run_id"] for event in told[2:]} == set(children)


async def test_a_child_shares_the_sandbox_unless_it_is_to_have_its_own(out: Outside, client: Redis) -> None:
    book = {"Task": [turn("", delegate("a", "Left"), delegate("b", "Right", share_sandbox=False)), turn("Done.")]}
    run, _ = await ended(out, client, Books({**TWO, **book}))
    threads = [await out.store.thread(child.partition(".")[0]) for child in await children_of(out, run.id)]
    assert [thread and thread.sandbox_of == run.thread_id for thread in threads] == [True, False]


async def test_a_childs_failure_is_a_value(out: Outside, client: Redis) -> None:
    book = {"Task": [turn("", delegate("a", "Left", max_turns=1)), turn("It failed.")]}
    run, [result] = await ended(out, client, Books({**TWO, **book}))
    assert (run.status, run.output) == (RunStatus.SUCCEEDED, "It failed.")
    assert "'About Left' gave no answer (budget_exhausted): Its run " in result["content"]


@pytest.mark.parametrize(
    ("more", "words"),
    [({"tools": ["look", "fly"]}, "No such tool: fly. The tools are: look"), ({"model": "x/y"}, "x/y")],
)
async def test_what_a_child_cannot_be_given_is_a_value(
    out: Outside, client: Redis, more: dict[str, Any], words: str
) -> None:
    book = {"Task": [turn("", delegate("a", "Left", **more)), turn("Then not.")]}
    run, [result] = await ended(out, client, Books({**TWO, **book}))
    assert run.output == "Then not."
    assert words in result["content"]


async def test_a_child_has_no_more_than_its_parent(out: Outside, client: Redis) -> None:
    book = {
        "Task": [turn("", delegate("a", "Left", max_cost=9, tools=["look"]), delegate("b", "Right")), turn("Done.")]
    }
    model = Books({**TWO, **book})
    parameters = {
        "max_cost": 2,
        "tools": ["look", "delegate"],
        "permissions": ["blind: deny"],
        "max_turns": 7,
        "allowed_hosts": [],
    }
    run, _ = await ended(out, client, model, parameters=parameters)
    left, right = [(await run_of(out, child)).parameters for child in await children_of(out, run.id)]
    half = {"max_cost": pytest.approx((2 - 0.001) / 2), "max_delegates": 15}  # after the parent's first turn
    assert left == {**parameters, "tools": ["look"], **half}
    assert right == {**parameters, **half}
    assert model.offered["Left"] == ["look"]


@pytest.mark.parametrize(("model", "answer"), [("test/cheap", "Left is done."), ("test/dear", "may not be test/dear")])
async def test_a_childs_model_is_one_that_the_settings_list(
    out: Outside, client: Redis, model: str, answer: str
) -> None:
    books = Books({**TWO, "Task": [turn("", delegate("a", "Left", model=model)), turn("Done.")]})
    runtime = runtime_of(books, client, agent=AgentSettings(delegate_models=["test/cheap"]))
    runtime.models.update({"test/cheap": books, "test/dear": books})
    run_id = await begin(out)
    await work(out, client, runtime)
    [result] = await results_of(out, await run_of(out, run_id))
    assert answer in result["content"]


async def test_agents_that_delegate_without_end_are_told(out: Outside, client: Redis) -> None:
    model = Books({"Task": [turn("", delegate("a", "Task")), turn("Enough.")]})
    run, [result] = await ended(out, client, model)
    assert (run.output, result["content"]) == ("Enough.", "Enough.")
    deepest = run
    while children := await children_of(out, deepest.id):
        deepest = await run_of(out, children[0])
        if deepest.depth >= 16:
            break
    [told] = await results_of(out, deepest)
    assert ErrorCode.CALL_TOO_DEEP in told["content"]


async def test_what_delegates_spend_is_spent_for_the_run_that_started_them(out: Outside, client: Redis) -> None:
    book = {
        "Task": [
            turn("", delegate("a", "Left"), delegate("b", "Nest")),
            turn("", delegate("c", "Left")),
            turn("Done."),
        ],
        "Nest": [turn("", delegate("d", "Right")), turn("Nested.")],
    }
    run, _ = await ended(out, client, Books({**TWO, **book}), parameters={"max_cost": 2, "max_tokens": 10_000})
    first, nest, last = [await run_of(out, child) for child in await children_of(out, run.id)]
    [nested] = [await run_of(out, child) for child in await children_of(out, nest.id)]
    below = [first, nest, nested, last]
    assert run.usage["delegated"]["runs"] == 4
    assert run.usage["delegated"]["cost"] == pytest.approx(sum(each.usage["cost"] for each in below))
    tokens = [each.usage["input_tokens"] + each.usage["output_tokens"] for each in below]
    assert run.usage["delegated"]["tokens"] == sum(tokens)
    before = 2 * run.usage["cost"] / 3 + sum(each.usage["cost"] for each in below[:3])
    assert last.parameters["max_cost"] == pytest.approx(2 - before)
    assert last.parameters["max_tokens"] < 10_000 - sum(tokens[:3])


async def test_a_family_of_delegates_has_no_more_members_than_its_first_run_may_start(
    out: Outside, client: Redis
) -> None:
    two = [delegate("a", "Task"), delegate("b", "Task")]
    model = Books({"Task": [turn("", *two), turn("", delegate("c", "Task")), turn("Enough.")]})
    run, results = await ended(out, client, model, parameters={"max_delegates": 5})
    assert (run.output, run.usage["delegated"]["runs"]) == ("Enough.", 5)
    assert [each["content"] for each in results[:2]] == ["Enough."] * 2
    family, seen = [run.id], 0
    while seen < len(family):
        family += await children_of(out, family[seen])
        seen += 1
    assert len(family) == 1 + 5
    told = [each["content"] for member in family for each in await results_of(out, await run_of(out, member))]
    assert any("as many agents as it may (max_delegates)" in each for each in told)


@given(st.integers(0, 40), st.integers(1, 20), st.integers(0, 10**6), st.floats(0.01, 100))
def test_shares_are_together_no_more_than_there_is(runs: int, count: int, tokens: int, cost: float) -> None:
    left = Left(runs, tokens + count, cost)
    shares = [share for nth in range(count) if (share := left.share(nth, count))]
    assert len(shares) == min(runs, count)
    assert sum(1 + share.runs for share in shares) <= runs
    assert sum(share.tokens or 0 for share in shares) <= tokens + count
    assert sum(share.cost or 0 for share in shares) <= cost * 1.000001


async def test_a_canceled_parent_ends_after_its_children(out: Outside, client: Redis) -> None:
    model = Books(TWO)
    run_id = await begin(out)
    runtime = runtime_of(model, client)
    await Runner(out, runtime).execute(str(await as_any(client.lpop("rung"))), "w1", Signals())
    await client.delete("rung")  # the children are not begun yet
    _, ring = await out.store.cancel(run_id, reason="test")
    await out.ring(ring)
    await work(out, client, runtime)
    ends = [await run_of(out, each) for each in (*await children_of(out, run_id), run_id)]
    assert [run.status for run in ends] == [RunStatus.CANCELED] * 3
    assert max(str(run.ended_at) for run in ends) == str(ends[-1].ended_at)


async def test_beside_calls_that_act_a_delegate_keeps_its_place(out: Outside, client: Redis) -> None:
    ledger = Ledger()
    calls = [("x", "keyed", "{}"), delegate("a", "Left"), delegate("b", "Right"), ("y", "keyed", "{}")]
    run_id = await begin(out)
    model = Books({**TWO, "Task": [turn("", *calls), turn("Done.")]})
    await work(out, client, runtime_of(model, client, ledger))
    steps = [step.key for step in await out.store.journal(run_id)]
    assert steps == [
        "llm:1", "tool:x", "call:delegate:a", "tool:a", "call:delegate:b", "tool:b", "tool:y", "llm:2",
    ]  # fmt: skip
    assert ledger.effects[f"{run_id}/tool:x"] == ledger.effects[f"{run_id}/tool:y"] == 1


async def test_killed_anywhere_parent_and_children_do_everything_once(
    out: Outside, client: Redis, redis_url: str
) -> None:
    """Of parent and children alike, the worker dies at each point on the way; another one goes on."""
    for dies_at in itertools.count(1, 5):
        run_id = await begin(out)
        survived = False
        async with mortal(redis_url, dies_at) as (doomed, its_client):
            await work(doomed, its_client, runtime_of(Books(TWO), its_client))
            survived = True
        known = [run_id, *await children_of(out, run_id)]
        for each in known:
            if await out.store.run(each):
                expired = await out.store.expire(each, "w1", max_attempts=5)
                await out.ring(expired.ring or each)
        await work(out, client, runtime_of(Books(TWO), client))
        run = await run_of(out, run_id)
        assert (run.status, run.output) == (RunStatus.SUCCEEDED, "All is done."), dies_at
        steps = await out.store.journal(run_id)
        assert {step.status for step in steps} == {StepStatus.SUCCEEDED}
        assert sorted(step.key for step in steps) == [
            "call:delegate:a", "call:delegate:b", "llm:1", "llm:2", "tool:a", "tool:b",
        ]  # fmt: skip
        assert len(await out.store.messages(run.thread_id)) == 5
        if survived:
            assert dies_at > 60, "too few points to mean anything"
            return
