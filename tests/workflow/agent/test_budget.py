"""Runs that come to the end of a budget, against a real Valkey: at once, killed, taken over, waiting, and raised."""

import asyncio
import itertools
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from modem.agenda import Agenda
from shared.budgets.types import Account, Owner
from shared.config import BudgetSettings, LlmSettings, WorkerSettings
from shared.errors import ErrorCode
from shared.events.outside import Outside
from shared.ids import SHARDS, new_run_id
from shared.keys import thread_keys_of
from shared.redis import connect
from shared.threads import again
from shared.threads.types import Run
from shared.types import RunStatus
from tests.shared.budgets.support import budget
from tests.workflow.agent.support import DONE, Worker, execute, mortal, new_thread, runtime_of, submit
from tests.workflow.support import outside
from workflow.agent.budget import account_of
from workflow.agent.context import estimate_tokens
from workflow.llm.types import (
    ModelError,
    ModelRequest,
    ModelResponse,
    ModelsUnavailable,
    Price,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from workflow.runner import Runner, Signals, take_from
from workflow.runtime import Runtime

TURNS = 4
LONGEST = 400
HOUR_MS = 3_600_000
ROOMY = BudgetSettings(
    thread_max_cost=9, thread_max_tokens=10**9, key_max_cost=9, key_max_turns=10**6, workspace_max_cost=9
)


@dataclass
class Meter(Worker):
    """Bills what it reads and writes: answers of any length, up to the one that it is allowed."""

    turns: int = TURNS
    context_tokens: int = 100_000
    price: Price | None = field(default_factory=lambda: Price(1e-6, 2e-6))
    shortest: int = 20
    billed: float = 0.0
    asked: list[str] = field(default_factory=list)
    dice: random.Random = field(default_factory=lambda: random.Random(7))

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ThinkingDelta | ModelResponse, None]:
        self.asked.append(self._place(request))
        async for item in super().stream(request):
            yield self._bill(request, item) if isinstance(item, ModelResponse) else item

    def _bill(self, request: ModelRequest, answer: ModelResponse) -> ModelResponse:
        assert self.price is not None
        wanted, most = self.dice.randint(self.shortest, LONGEST), request.max_output_tokens or LONGEST
        usage = Usage(estimate_tokens(request.messages), min(wanted, most))
        cost = usage.input_tokens * self.price.input + usage.output_tokens * self.price.output
        self.billed += cost
        finish = "length" if wanted > most else answer.finish_reason
        return replace(answer, usage=replace(usage, cost=cost), finish_reason=finish)


def runtime(model: Any, client: Redis, **settings: Any) -> Runtime:
    sections = {"llm": LlmSettings(max_output_tokens=LONGEST), "budget": ROOMY, **settings}
    return runtime_of(model, client, chars=100, **sections)


async def spent(client: Redis, run: Run, owner: Owner = Owner.KEY) -> float:
    """USD. Nothing is held any more."""
    kept = await budget(client, owner, account_of(run))
    assert (kept["held_cost"], kept["held_tokens"], kept["held_turns"]) == (0, 0, 0)
    return kept["cost"] / 1e6


def held_up(model: Worker) -> tuple[asyncio.Event, asyncio.Event]:
    """The model is asked (first event), and does not answer before the second one."""
    asked, answers = asyncio.Event(), asyncio.Event()

    async def wait(_: str) -> None:
        asked.set()
        await answers.wait()

    model.before = wait
    return asked, answers


def told(run: Run) -> str:
    """The error of a run that failed for want of a budget."""
    assert run.error is not None
    assert (run.status, run.error["code"]) == (RunStatus.FAILED, ErrorCode.BUDGET_EXHAUSTED)
    return str(run.error["detail"])


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"max_turns": 2}, r"It is 2 model calls, of which 2 model calls are spent\. Raise the run's max_turns"),
        ({"max_cost": 0.004}, r"It is \$0\.004, of which \$0\.00\d+ are spent.* Raise the run's max_cost"),
        ({"max_tokens": 3_000}, r"It is 3,000 tokens, of which .* are spent.* Raise the run's max_tokens"),
    ],
)
async def test_a_run_ends_at_its_limit_and_a_retry_with_a_higher_one_goes_on(
    out: Outside, client: Redis, parameters: dict[str, Any], words: str
) -> None:
    model, thread = Meter(), await new_thread(out)
    run_id = await submit(out, thread, parameters=parameters)
    run = await execute(out, runtime(model, client), run_id)
    assert re.match(f"The budget of this run is used up. {words}.* and retry the run", told(run))
    last = orjson.loads((await out.store.events_of(run, since=None, count=999))[-1].event)
    assert (last["type"], last["data"]["error"]) == ("run.failed", run.error)
    kept = [step for step in await out.store.journal(run_id) if step.kind == "llm" and step.error is None]
    assert 0 < len(kept) <= TURNS
    model.asked.clear()
    new_id = new_run_id(thread)
    await again.retry(out.store, run, new_id, key_id=None, parameters=dict.fromkeys(parameters, 10**5))
    retried = await execute(out, runtime(model, client), new_id)
    assert (retried.status, retried.output) == (RunStatus.SUCCEEDED, DONE)
    assert model.asked == [f"t1.{turn}" for turn in range(len(kept) + 1, TURNS + 2)]


@pytest.mark.parametrize("owner", [Owner.THREAD, Owner.KEY, Owner.WORKSPACE])
@pytest.mark.parametrize(("what", "limit"), [("cost", 0.004), ("tokens", 3_000), ("turns", 2), ("seconds", 0.001)])
async def test_a_limit_of_a_thread_key_or_workspace_ends_a_run_and_a_retry_after_a_raise_goes_on(
    out: Outside, client: Redis, owner: Owner, what: str, limit: float
) -> None:
    model, thread, setting = Meter(), await new_thread(out), f"{owner}_max_{what}"

    def allows(most: float) -> Runtime:
        return runtime(model, client, budget=BudgetSettings.model_validate({setting: most}))

    run_id = await submit(out, thread, key_id="k")
    model.before = pause(out)
    run = await execute(out, allows(limit), run_id)
    assert f"Raise budget.{setting}" in told(run)
    new_id = new_run_id(thread)
    await again.retry(out.store, run, new_id, key_id="k")
    assert (await execute(out, allows(10**6), new_id)).output == DONE


def pause(out: Outside) -> Callable[[str], Awaitable[None]]:
    """Each answer takes at least two milliseconds of Redis' time."""

    async def wait(_: str) -> None:
        begun = await out.store.now_ms()
        while await out.store.now_ms() < begun + 2:
            pass

    return wait


async def test_a_run_out_of_time_ends_in_the_middle_of_a_call(out: Outside, client: Redis) -> None:
    model = Meter()
    held_up(model)
    run = await execute(
        out, runtime(model, client), await submit(out, await new_thread(out), parameters={"max_seconds": 0.05})
    )
    assert "It is 0.05 s of run time" in told(run)
    assert await spent(client, run, Owner.THREAD) > 0


async def test_an_answer_that_the_last_money_cuts_short_is_not_taken_for_an_answer(out: Outside, client: Redis) -> None:
    model, needed = Meter(turns=0, shortest=LONGEST), 0

    async def look(_: str) -> None:
        nonlocal needed
        needed = (await budget(client, Owner.THREAD, Account("w", None, thread, "-")))["held_tokens"]

    model.before, thread = look, await new_thread(out)
    assert (await execute(out, runtime(model, client), await submit(out, thread))).output == DONE
    model.before, thread = None, await new_thread(out)
    run = await execute(out, runtime(model, client), await submit(out, thread, parameters={"max_tokens": needed - 100}))
    assert model.requests["t1.1"].max_output_tokens == LONGEST - 100
    assert "this run" in told(run)
    # What it took is spent all the same.
    assert await spent(client, run, Owner.THREAD) == pytest.approx(model.billed / 2, rel=0.2)


async def test_fifty_runs_at_once_on_one_key_are_never_billed_more_than_its_limit(
    redis_url: str, out: Outside, client: Redis
) -> None:
    limit, most = 0.15, 0
    bill = [Meter(turns=number % 10, dice=random.Random(number)) for number in range(50)]

    async def look(_: str) -> None:
        nonlocal most
        kept = await budget(client, Owner.KEY)
        most = max(most, kept["cost"] + kept["held_cost"])

    async def one(model: Meter, number: int) -> Run:
        model.before = look
        mine = connect(redis_url, timeout_seconds=5, max_connections=4)
        run_id = await submit(out, await new_thread(out), key_id="k")
        budgets = BudgetSettings(key_max_cost=limit, workspace_max_cost=1)
        try:
            return await execute(outside(mine), runtime(model, mine, budget=budgets), run_id, f"w{number}")
        finally:
            await mine.aclose()

    runs = await asyncio.gather(*(one(model, number) for number, model in enumerate(bill)))
    billed = sum(model.billed for model in bill)
    assert await spent(client, runs[0]) == pytest.approx(billed, abs=1e-6 * sum(model.calls for model in bill))
    assert limit * 0.95 < billed <= limit
    assert most <= limit * 1e6
    done = [run for run in runs if run.status is RunStatus.SUCCEEDED]
    assert 0 < len(done) < 50
    assert all("the key k" in told(run) for run in runs if run not in done)


async def test_killed_anywhere_no_money_is_lost_and_none_counts_twice(
    redis_url: str, out: Outside, client: Redis
) -> None:
    exact = 0
    for dies_at in itertools.count(1, 3):
        model = Meter()
        run_id = await submit(out, await new_thread(out), key_id=f"k{dies_at}")
        survived = False
        async with mortal(redis_url, dies_at) as (dying, its_client):
            await execute(dying, runtime(model, its_client), run_id)
            survived = True
        dead = await out.store.run(run_id)
        assert dead is not None
        in_flight = (await budget(client, Owner.KEY, account_of(dead)))["held_cost"] / 1e6
        await take_from("w1", run_id, out.store, runtime(model, client))
        run = await execute(out, runtime(model, client), run_id, "w2")
        assert run.output == DONE
        over = await spent(client, run) - model.billed
        assert -1e-5 < over < in_flight + 1e-5
        exact += in_flight == 0
        if survived:
            break
    assert dies_at > 60, "too few points to mean anything"
    assert 0 < exact < dies_at / 3


async def test_a_call_of_a_worker_that_is_frozen_meanwhile_counts_once_and_in_full(out: Outside, client: Redis) -> None:
    frozen, model = Meter(turns=0), Meter(turns=0)
    asked, answers = held_up(frozen)
    run_id = await submit(out, await new_thread(out), key_id="k")
    zombie = asyncio.create_task(Runner(out, runtime(frozen, client)).execute(run_id, "w1", Signals()))
    await asyncio.wait_for(asked.wait(), 5)
    held = (await budget(client, Owner.KEY))["held_cost"] / 1e6
    assert held > 0
    assert await take_from("w1", run_id, out.store, runtime(model, client)) == run_id
    run = await execute(out, runtime(model, client), run_id, "w2")
    assert run.output == DONE
    answers.set()
    await asyncio.wait_for(zombie, 5)
    assert await spent(client, run) == pytest.approx(held + model.billed, abs=1e-5)


async def test_a_run_that_fails_for_want_of_progress_holds_nothing(out: Outside, client: Redis) -> None:
    model = Meter()
    asked, answers = held_up(model)
    run_id = await submit(out, await new_thread(out), key_id="k")
    impatient = runtime(model, client, worker=WorkerSettings(max_attempts=1))
    dead = asyncio.create_task(Runner(out, impatient).execute(run_id, "w1", Signals()))
    await asyncio.wait_for(asked.wait(), 5)
    await take_from("w1", run_id, out.store, impatient)
    run = await out.store.run(run_id)
    assert run is not None
    assert (run.status, run.error and run.error["code"]) == (RunStatus.FAILED, "no_progress")
    assert await spent(client, run) > 0
    answers.set()
    await asyncio.wait_for(dead, 5)


async def test_a_call_that_a_cancel_breaks_off_counts_in_full(out: Outside, client: Redis) -> None:
    model = Meter()
    asked, _ = held_up(model)
    run_id = await submit(out, await new_thread(out), key_id="k")
    runner = Runner(out, runtime(model, client))
    task = asyncio.create_task(runner.execute(run_id, "w1", Signals()))
    await asyncio.wait_for(asked.wait(), 5)
    held = (await budget(client, Owner.KEY))["held_cost"] / 1e6
    await out.store.cancel(run_id, reason="test")
    runner.cancel(run_id)
    await asyncio.wait_for(task, 5)
    run = await out.store.run(run_id)
    assert run is not None
    assert run.status is RunStatus.CANCELED
    assert await spent(client, run) == pytest.approx(held, abs=1e-6) != 0


class Down(Meter):
    """Fails before its answer begins, or in the middle of it."""

    midway = False

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ThinkingDelta | ModelResponse, None]:
        if self.midway:
            yield TextDelta("Half an")
        raise ModelError(ErrorCode.MODEL_UNAVAILABLE, "It is down.", retryable=True, outage=True)


@pytest.mark.parametrize("midway", [False, True])
async def test_a_try_that_failed_before_its_answer_costs_nothing_and_one_broken_off_in_full(
    out: Outside, client: Redis, midway: bool
) -> None:
    down, other = Down(), Meter(turns=0, name="other")
    down.midway = midway
    run_id = await submit(out, await new_thread(out), key_id="k")
    run = await execute(out, replace(runtime(down, client), fallbacks=[other]), run_id)
    assert run.output == DONE
    over = await spent(client, run) - other.billed
    assert (over > 2 * LONGEST * 2e-6) if midway else (over == pytest.approx(0, abs=1e-6))


async def test_a_fallback_is_reserved_at_its_own_price_and_not_asked_where_it_is_too_dear(
    out: Outside, client: Redis
) -> None:
    dear = Meter(turns=0, name="dear", price=Price(1e-3, 2e-3))
    run_id = await submit(out, await new_thread(out), parameters={"max_cost": 0.01})
    run = await execute(out, replace(runtime(Down(), client), fallbacks=[dear]), run_id)
    assert "this run" in told(run)
    assert dear.calls == 0


class Away(Meter):
    """May not be asked before a time, once."""

    wait_ms = 400
    came = False

    def __init__(self, out: Outside) -> None:
        super().__init__(turns=0)
        self.out = out

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ThinkingDelta | ModelResponse, None]:
        if not self.came:
            self.came = True
            at = await self.out.store.now_ms() + self.wait_ms
            raise ModelsUnavailable("It is away.", retry_at=at / 1000, retry_after=self.wait_ms / 1000)
        async for item in super().stream(request):
            yield item


async def test_what_a_run_waits_is_no_run_time(out: Outside, client: Redis) -> None:
    model, limits = Away(out), BudgetSettings(key_max_seconds=3_600)
    run_id = await submit(out, await new_thread(out), key_id="k", parameters={"max_seconds": 60})
    begun = await out.store.now_ms()
    waiting = await execute(out, runtime(model, client, budget=limits), run_id)
    assert waiting.status is RunStatus.WAITING
    # As if it had begun an hour ago, and waited since.
    for field_name in ("started_at", "claimed_at"):
        await client.hincrby(thread_keys_of(run_id).run(run_id), field_name, -HOUR_MS)
    run = waiting
    async with asyncio.timeout(10):
        while not run.status.terminal:
            await Agenda(out).tick(range(SHARDS))
            run = await execute(out, runtime(model, client, budget=limits), run_id)
    assert run.output == DONE
    counted: Any = await client.hget(account_of(run).hashes()[3], "ms")
    assert int(counted) <= await out.store.now_ms() - begun - model.wait_ms


async def test_the_time_of_all_attempts_is_a_runs_time(out: Outside, client: Redis) -> None:
    model = Meter()
    asked, answers = held_up(model)
    run_id = await submit(out, await new_thread(out), parameters={"max_seconds": 600})
    first = asyncio.create_task(Runner(out, runtime(model, client)).execute(run_id, "w1", Signals()))
    await asyncio.wait_for(asked.wait(), 5)
    await client.hincrby(thread_keys_of(run_id).run(run_id), "claimed_at", -HOUR_MS)
    await take_from("w1", run_id, out.store, runtime(model, client))
    assert "It is 600 s of run time" in told(await execute(out, runtime(model, client), run_id, "w2"))
    answers.set()
    await asyncio.wait_for(first, 5)
