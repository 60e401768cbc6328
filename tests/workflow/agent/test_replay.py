"""Settings and parameters that change under a run in flight do not break its replay."""

from dataclasses import replace
from typing import Any

from redis.asyncio import Redis

from modem.agenda import Agenda
from shared.config import ToolsSettings
from shared.events.outside import Outside
from shared.ids import SHARDS, new_run_id
from shared.threads import again
from shared.threads.steps import Answer
from shared.types import RunStatus, StepStatus, WaitKind
from tests.workflow.agent.support import execute, new_thread, submit
from tests.workflow.agent.test_delegate import Books, begin, children_of, delegate, results_of, run_of, runtime_of, work
from tests.workflow.support import Playbook, a_runtime, turn
from workflow.tool.delegate import DelegateTool
from workflow.tool.job_plan import JobPlanTool
from workflow.tool.registry import Registry

BOOK = {
    "Task": [turn("", delegate("a", "Left")), turn("", ("c", "look", "{}")), turn("Done.")],
    "Left": [turn("Left is done.")],
}


async def test_a_retry_with_a_raised_limit_goes_on_after_a_delegate(out: Outside, client: Redis) -> None:
    runtime = runtime_of(Books(BOOK), client)
    run_id = await begin(out, parameters={"max_turns": 2})
    await work(out, client, runtime)
    run = await run_of(out, run_id)
    assert (run.status, run.error and run.error["code"]) == (RunStatus.FAILED, "budget_exhausted")
    new_id = new_run_id(run.thread_id)
    submitted = await again.retry(out.store, run, new_id, key_id=None, parameters={"max_turns": 10})
    await out.ring(submitted.ring or new_id)
    await work(out, client, runtime)
    retried = await run_of(out, new_id)
    assert (retried.status, retried.error) == (RunStatus.SUCCEEDED, None)


async def test_a_run_goes_on_where_delegate_was_disabled_after_its_call(out: Outside, client: Redis) -> None:
    model = Books({**BOOK, "Task": [turn("", delegate("a", "Left")), turn("", ("c", "keyed", "{}")), turn("Done.")]})
    asks: Any = {"tools": ToolsSettings(permissions=["keyed: ask"])}
    run_id = await begin(out)
    await work(out, client, runtime_of(model, client, **asks))
    assert (await run_of(out, run_id)).status is RunStatus.WAITING
    [step] = [step for step in await out.store.journal(run_id) if step.open]
    await out.store.signal(run_id, step.key, Answer(StepStatus.SUCCEEDED, result=True), [WaitKind.HUMAN])
    run = await execute(out, a_runtime(model, client=client, **asks), run_id)  # no delegate any more
    assert (run.status, run.error) == (RunStatus.SUCCEEDED, None)


async def test_a_child_that_has_ended_is_heard_where_a_tool_that_it_was_given_is_gone(
    out: Outside, client: Redis
) -> None:
    model = Books({**BOOK, "Task": [turn("", delegate("a", "Left", tools=["look"])), turn("Done.")]})
    runtime = runtime_of(model, client)
    run_id = await begin(out)
    await execute(out, runtime, run_id)
    [child] = await children_of(out, run_id)
    await execute(out, runtime, child)
    await Agenda(out).tick(range(SHARDS))
    run = await execute(out, replace(runtime, all_tools=Registry([DelegateTool()])), run_id)
    [result] = await results_of(out, run)
    assert (run.status, result["content"]) == (RunStatus.SUCCEEDED, "Left is done.")


async def test_a_run_goes_on_where_job_plan_was_disabled_after_its_approval(out: Outside, client: Redis) -> None:
    plan = '{"title": "Build", "steps": [{"title": "Do"}], "needs_approval": true}'
    model: Any = Playbook([turn("", ("p", "job_plan", plan)), turn("", ("b", "asking", "{}")), turn("Done.")])
    runtime = a_runtime(model, client=client)
    with_plan = replace(runtime, all_tools=runtime.all_tools.plus([JobPlanTool()]))
    run_id = await submit(out, await new_thread(out), parameters={"max_turns": 1})
    assert (await execute(out, with_plan, run_id)).status is RunStatus.WAITING
    [step] = [step for step in await out.store.journal(run_id) if step.open]
    await out.store.signal(run_id, step.key, Answer(StepStatus.SUCCEEDED, result=True), [WaitKind.HUMAN])
    run = await execute(out, with_plan, run_id)
    assert run.error
    assert run.error["code"] == "budget_exhausted"
    new_id = new_run_id(run.thread_id)
    await again.retry(out.store, run, new_id, key_id=None, parameters={"max_turns": 10})
    retried = await execute(out, runtime, new_id)
    assert (retried.status, retried.error) == (RunStatus.SUCCEEDED, None)
