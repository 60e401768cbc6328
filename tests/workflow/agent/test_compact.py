"""Runs whose conversation outgrows their model's context, against a real Valkey, and killed at every point."""

import itertools
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from shared.config import AgentSettings
from shared.events.outside import Outside
from shared.ids import new_run_id
from shared.threads import again
from shared.types import JSON, RunStatus, StepStatus
from tests.workflow.agent.support import (
    DONE,
    Worker,
    execute,
    mortal,
    new_thread,
    runtime_of,
    submit,
)
from tests.workflow.agent.test_conversation import assert_well_formed
from tests.workflow.support import Ledger
from workflow.agent.context import estimate_tokens
from workflow.agent.conversation import SUMMARY

TURNS = 12
Contexts = dict[str, list[JSON]]


def contexts_of(model: Worker) -> Contexts:
    """What the model read for each turn, without the system prompt."""
    return {place: request.messages[1:] for place, request in model.requests.items()}


async def keys_of(out: Outside, run_id: str, kind: str) -> list[str]:
    return [step.key for step in await out.store.journal(run_id) if step.kind == kind]


async def test_a_long_run_is_summed_up_and_its_model_never_reads_more_than_it_can(out: Outside, client: Redis) -> None:
    model, thread = Worker(TURNS), await new_thread(out)
    run_id = await submit(out, thread)
    run = await execute(out, runtime_of(model, client), run_id)
    assert (run.status, run.output) == (RunStatus.SUCCEEDED, DONE)
    compactions = await keys_of(out, run_id, "compact")
    assert model.summaries == len(compactions) >= 2
    for request in model.requests.values():
        assert_well_formed(request.messages[1:])
        assert estimate_tokens(request.messages) < 4_000 - 500
        assert {"role": "user", "content": "Task 1"} in request.messages
    last = contexts_of(model)[f"t1.{TURNS + 1}"]
    assert last[0]["content"].startswith(SUMMARY)
    assert last[-1]["tool_call_id"] == f"t1.{TURNS}"
    assert len(last) < 12
    # What the model was paid for, summaries and all.
    assert run.usage["output_tokens"] == 20 * (TURNS + 1 + len(compactions))
    told = [orjson.loads(e.event) for e in await out.store.events_of(run, since=None, count=9999) if e.type == "log"]
    assert [event["data"]["level"] for event in told] == ["info"] * len(compactions)


async def test_a_later_run_goes_on_from_the_summary(out: Outside, client: Redis) -> None:
    model, thread = Worker(TURNS), await new_thread(out)
    await execute(out, runtime_of(model, client), await submit(out, thread))
    end_of_first = contexts_of(model)[f"t1.{TURNS + 1}"]
    await execute(out, runtime_of(model, client), await submit(out, thread, "Task 2"))
    begin_of_second = contexts_of(model)["t2.1"]
    assert begin_of_second[: len(end_of_first)] == end_of_first
    assert [m["content"] for m in begin_of_second[len(end_of_first) :]] == [DONE, "Task 2"]
    assert model.summaries > 2


async def test_killed_anywhere_no_compaction_is_repeated_and_every_turn_reads_what_it_would_have_read(
    out: Outside, client: Redis, redis_url: str
) -> None:
    whole, thread = Worker(TURNS), await new_thread(out)
    whole_run = await submit(out, thread)
    await execute(out, runtime_of(whole, client), whole_run)
    points = 0
    for dies_at in itertools.count(1, 3):
        model, thread = Worker(TURNS), await new_thread(out)
        run_id = await submit(out, thread)
        survived = False
        async with mortal(redis_url, dies_at) as (dying, its_client):
            await execute(dying, runtime_of(model, its_client), run_id)
            survived = True
        asked = model.summaries
        done = len([s for s in await out.store.journal(run_id) if s.kind == "compact" and s.finished])
        assert asked - done in (0, 1)  # one may have been in flight
        await out.store.expire(run_id, "w1", max_attempts=5)
        await execute(out, runtime_of(model, client), run_id, "w2")
        points += 1
        assert model.summaries == whole.summaries + asked - done
        assert contexts_of(model) == contexts_of(whole)
        assert await keys_of(out, run_id, "compact") == await keys_of(out, whole_run, "compact")
        if survived:
            break
    assert points > 30, "too few points to mean anything"


@pytest.mark.parametrize("compact_at", [0.3, 1.0])
async def test_a_run_under_way_keeps_its_summaries_whatever_the_settings_say_now(
    out: Outside, client: Redis, redis_url: str, compact_at: float
) -> None:
    model, thread = Worker(TURNS), await new_thread(out)
    run_id = await submit(out, thread)
    async with mortal(redis_url, 90) as (dying, its_client):
        await execute(dying, runtime_of(model, its_client), run_id)
    before = await keys_of(out, run_id, "compact")
    assert before
    assert len(await keys_of(out, run_id, "llm")) < TURNS
    await out.store.expire(run_id, "w1", max_attempts=5)
    runtime = runtime_of(model, client, agent=AgentSettings(compact_at=compact_at))
    run = await execute(out, runtime, run_id, "w2")
    assert run.output == DONE
    assert (await keys_of(out, run_id, "compact"))[: len(before)] == before


async def test_a_result_that_is_too_long_by_itself_is_shortened(out: Outside, client: Redis) -> None:
    model, thread = Worker(1), await new_thread(out)
    run_id = await submit(out, thread)
    run = await execute(out, runtime_of(model, client, chars=29_000), run_id)
    assert run.output == DONE
    seen = model.requests["t1.2"].messages
    assert "characters were left out to make room" in seen[-1]["content"]
    assert seen[-1]["content"].startswith("Of t1.1")
    assert estimate_tokens(seen) < 4_000 - 500
    assert model.summaries == 0
    whole = (await out.store.messages(thread))[2]["content"]
    assert len(whole) > 29_000  # the thread keeps all of it


async def test_a_task_that_does_not_fit_is_an_error_that_says_so(out: Outside, client: Redis) -> None:
    run_id = await submit(out, await new_thread(out), "Task 1 " + "word " * 4_000)
    run = await execute(out, runtime_of(Worker(1), client), run_id)
    assert run.error is not None
    assert run.error["code"] == "context_exceeded"
    assert "Shorten the task" in run.error["detail"]


async def test_a_model_that_gives_no_summary_fails_the_run_and_a_retry_asks_again(out: Outside, client: Redis) -> None:
    class Mute(Worker):
        async def stream(self, request: Any) -> Any:
            async for item in super().stream(request):
                silent = request.messages[0]["content"].startswith("You sum up") and self.summaries == 1
                yield type(item)("") if silent else item

    model, thread = Mute(TURNS), await new_thread(out)
    run_id = await submit(out, thread)
    run = await execute(out, runtime_of(model, client), run_id)
    assert run.error is not None
    assert "gave no summary" in run.error["detail"]
    failed = (await out.store.journal(run_id))[-1]
    assert (failed.kind, failed.status) == ("compact", StepStatus.FAILED)
    new_id = new_run_id(thread)
    await again.retry(out.store, run, new_id, key_id=None)
    assert (await execute(out, runtime_of(model, client), new_id)).output == DONE


async def test_a_run_retried_after_its_thread_went_on_sums_up_its_own_messages(out: Outside, client: Redis) -> None:
    model, thread = Worker(TURNS), await new_thread(out)
    run_id = await submit(out, thread, parameters={"max_turns": 4})
    run = await execute(out, runtime_of(model, client), run_id)
    assert run.status is RunStatus.FAILED
    model.turns = 0
    await execute(out, runtime_of(model, client), await submit(out, thread, "Task 2"))
    model.turns = TURNS
    new_id = new_run_id(thread)
    await again.retry(out.store, run, new_id, key_id=None, parameters={"max_turns": 100})
    assert (await execute(out, runtime_of(model, client), new_id)).output == DONE
    end_of_retried = contexts_of(model)[f"t1.{TURNS + 1}"]
    model.turns = 0
    await execute(out, runtime_of(model, client), await submit(out, thread, "Task 3"))
    begin_of_third = contexts_of(model)["t3.1"]
    assert begin_of_third[: len(end_of_retried)] == end_of_retried


async def test_no_call_is_made_twice_on_the_way(out: Outside, client: Redis) -> None:
    ledger, model = Ledger(), Worker(TURNS)
    run_id = await submit(out, await new_thread(out))
    await execute(out, runtime_of(model, client, ledger=ledger), run_id)
    assert sorted(ledger.effects.values()) == [1] * TURNS
