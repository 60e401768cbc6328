"""Plans and todos in whole runs, against a real Valkey: approval through a durable wait, memory through compaction."""

import itertools
import json
from dataclasses import replace
from typing import Any, ClassVar

import orjson
import pytest
from redis.asyncio import Redis

from shared.events.outside import Outside
from shared.threads.steps import Answer
from shared.types import RunStatus, StepStatus, WaitKind
from tests.workflow.agent.support import Worker, execute, mortal, new_thread, runtime_of, submit
from tests.workflow.support import LedgerTool, NoArgs, Playbook, a_runtime, turn
from workflow.runtime import Runtime
from workflow.tool.base import Effect, ToolContext, ToolResult
from workflow.tool.registry import Registry, built_in_tools

PLAN = {"title": "Build it", "steps": [{"title": "Look"}, {"title": "Do"}]}
PROGRESS = {**PLAN, "steps": [{"title": "Look", "status": "completed"}, {"title": "Do"}]}
BOOK = [
    turn("", ("p", "job_plan", json.dumps({**PLAN, "needs_approval": True}))),
    turn("", ("q", "job_plan", json.dumps(PROGRESS))),
    turn("Built."),
]
QUESTION = "approve:job_plan:p"


def runtime(client: Redis, book: Any = BOOK, **settings: Any) -> Runtime:
    tools = built_in_tools(**settings)
    return replace(a_runtime(Playbook(book), client=client), all_tools=tools)


async def plans(out: Outside, run_id: str) -> list[tuple[int, str]]:
    run = await out.store.run(run_id)
    assert run is not None
    events = [orjson.loads(e.event) for e in await out.store.events_of(run, since=None, count=9999)]
    return [(event["data"]["version"], event["data"]["approval"]) for event in events if event["type"] == "plan"]


async def say(out: Outside, run_id: str, output: Any) -> None:
    await out.store.signal(run_id, QUESTION, Answer(StepStatus.SUCCEEDED, result=output), [WaitKind.HUMAN])


async def test_a_plan_that_needs_approval_waits_for_it_without_a_worker(out: Outside, client: Redis) -> None:
    run_id = await submit(out, await new_thread(out))
    waiting = await execute(out, runtime(client), run_id)
    assert waiting.status is RunStatus.WAITING
    [step] = [step for step in await out.store.journal(run_id) if step.key == QUESTION]
    assert step.status is StepStatus.WAITING_HUMAN
    assert step.wait is not None
    assert step.wait.request["plan"]["title"] == "Build it"
    assert await plans(out, run_id) == [(1, "pending")]
    await say(out, run_id, {"approved": True, "comment": "Be quick."})
    done = await execute(out, runtime(client), run_id, "w2")
    assert (done.status, done.output) == (RunStatus.SUCCEEDED, "Built.")
    assert await plans(out, run_id) == [(1, "pending"), (1, "approved"), (2, "approved")]
    told = [m["content"] for m in await out.store.messages(done.thread_id) if m["role"] == "tool"]
    assert "They say: Be quick." in told[0]


@pytest.mark.parametrize("before", [True, False])
async def test_the_setting_may_change_while_a_run_waits(out: Outside, client: Redis, before: bool) -> None:
    book = [turn("", ("p", "job_plan", json.dumps(PLAN))), turn("Built.")]
    run_id = await submit(out, await new_thread(out))
    run = await execute(out, runtime(client, book, plans_need_approval=before), run_id)
    assert run.status is (RunStatus.WAITING if before else RunStatus.SUCCEEDED)
    if before:
        await say(out, run_id, "yes")
        run = await execute(out, runtime(client, book, plans_need_approval=not before), run_id, "w2")
        assert (run.status, run.output) == (RunStatus.SUCCEEDED, "Built.")


async def test_killed_anywhere_it_asks_once_and_shows_each_version_once(
    out: Outside, client: Redis, redis_url: str
) -> None:
    """Two workers die at the same point of their life, before the answer and after it."""
    for points in itertools.count(1):
        survivors = 0
        run_id = await submit(out, await new_thread(out))
        for worker in ("w1", "w2"):
            async with mortal(redis_url, points) as (theirs, own):
                await execute(theirs, runtime(own), run_id, worker)
                survivors += 1
            await out.store.expire(run_id, worker, max_attempts=9)
            await say(out, run_id, True)
        for number in itertools.count(3):
            run = await execute(out, runtime(client), run_id, f"w{number}")
            if run.status is not RunStatus.WAITING:
                break
            await say(out, run_id, True)
        assert (run.status, run.output) == (RunStatus.SUCCEEDED, "Built."), points
        assert await plans(out, run_id) == [(1, "pending"), (1, "approved"), (2, "approved")]
        if survivors == 2:
            break
    assert points > 20, "too few points to mean anything"


class NotingTool(LedgerTool):
    """Says much, and leaves a todo and a plan as a model would have written them."""

    name: ClassVar[str] = "dump"
    effect: ClassVar[Effect] = Effect.REPEATABLE

    async def run(self, args: NoArgs, ctx: ToolContext) -> ToolResult:
        todos = [{"id": "1", "content": f"after {ctx.call_id}", "status": "in_progress"}]
        plan = {"version": 3, "title": "Build it", "approval": "approved", "steps": []}
        return ToolResult(ok=True, content="x" * 1_600, memory={"todos": todos, "plan": plan})


async def test_plan_and_todos_outlive_what_is_summed_up(out: Outside, client: Redis) -> None:
    model, thread = Worker(12), await new_thread(out)
    noting = replace(runtime_of(model, client), all_tools=Registry([NotingTool(None)]))  # type: ignore[arg-type]
    run_id = await submit(out, thread)
    assert (await execute(out, noting, run_id)).status is RunStatus.SUCCEEDED
    assert model.summaries >= 2
    summary = model.requests["t1.13"].messages[1]["content"]
    last = max(n for n in range(1, 13) if f"Up to ('1', '{n}')" in summary)
    assert "Job plan, version 3, approved by the user: Build it\nTodos:\n[>] 1. after t1." in summary
    written = int(summary.rpartition("after t1.")[2])
    assert written > last  # the newest, though it came after what is summed up
    book = [turn("", ("r", "todo_read", "{}")), turn("Read.")]
    later = await submit(out, thread, "What is left?")
    assert (await execute(out, runtime(client, book), later)).status is RunStatus.SUCCEEDED
    told = [m["content"] for m in await out.store.messages(thread) if m["role"] == "tool"]
    assert told[-1] == "[>] 1. after t1.12"
