"""What is reserved, spent and refused."""

import asyncio
import itertools
import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.budgets.store import Budgets
from shared.budgets.types import NOTHING, UNKNOWN, Account, Ask, Limits, Owner, Period, Spent
from shared.errors import AppError, ErrorCode
from shared.ids import slot_of
from shared.redis import connect
from shared.threads.attempt import Fenced
from tests.shared.budgets.support import ACCOUNT, an_ask, budget, held

ROOMY = {owner: Limits(cost=1.0, tokens=10_000, turns=100) for owner in Owner}


async def granted(budgets: Budgets, account: Account, limits: Mapping[Owner, Limits], ask: Ask) -> int:
    grant = await budgets.reserve(account, limits, ask)
    assert grant is not None
    assert (grant.end is not None) == (grant.output_tokens < ask.output_tokens)
    return grant.output_tokens


async def test_a_call_holds_the_most_it_may_take_and_then_has_spent_what_it_took(
    client: Redis, budgets: Budgets
) -> None:
    assert await granted(budgets, ACCOUNT, ROOMY, an_ask()) == 400
    for owner in Owner:
        assert await budget(client, owner) == {
            **{"cost": 0, "tokens": 0, "turns": 0},
            **{"held_cost": 900, "held_tokens": 500, "held_turns": 1},
        }
    await budgets.settle(ACCOUNT, an_ask(), Spent(0.0003, 220))
    for owner in Owner:
        assert await budget(client, owner) == {
            **{"cost": 300, "tokens": 220, "turns": 1},
            **{"held_cost": 0, "held_tokens": 0, "held_turns": 0},
        }


async def test_all_budgets_of_a_workspace_are_on_one_slot() -> None:
    slots = {slot_of(name[name.index("{") + 1 : name.index("}")]) for name in ACCOUNT.hashes()}
    assert len(slots) == 1


async def test_a_budget_without_a_limit_is_not_kept(client: Redis, budgets: Budgets) -> None:
    await budgets.reserve(ACCOUNT, {Owner.KEY: Limits(tokens=1000)}, an_ask())
    await budgets.settle(ACCOUNT, an_ask(), Spent(0.0003, 220))
    assert {name async for name in client.scan_iter()} == {
        keys.budget("w", "held", "t.r"),
        keys.budget("w", "key", "k"),
    }


@pytest.mark.parametrize("owner", list(Owner))
@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(cost=0.0001), "It is $0.0001, of which $0 are spent: too little for the next model call"),
        (Limits(tokens=120), "It is 120 tokens, of which 0 tokens are spent"),
    ],
)
async def test_what_does_not_fit_is_refused_with_whose_budget_and_its_limit(
    client: Redis, budgets: Budgets, owner: Owner, limits: Limits, words: str
) -> None:
    with pytest.raises(AppError) as caught:
        await budgets.reserve(ACCOUNT, {**ROOMY, owner: limits}, an_ask())
    assert caught.value.code is ErrorCode.BUDGET_EXHAUSTED
    setting = "cost" if limits.cost else "tokens"
    raised = f"the run's max_{setting}" if owner is Owner.RUN else f"budget.{owner}_max_{setting}"
    whose = {Owner.RUN: "this run", Owner.THREAD: "this thread", Owner.KEY: "the key k"}
    for part in (words, raised, whose.get(owner, "the workspace w")):
        assert part in caught.value.detail
    for other in Owner:
        assert (await budget(client, other))["held_tokens"] == 0


async def test_calls_and_run_time_have_limits_too(budgets: Budgets) -> None:
    limits = {Owner.THREAD: Limits(turns=1)}
    await budgets.reserve(ACCOUNT, limits, an_ask())
    await budgets.settle(ACCOUNT, an_ask(), Spent(0, 10))
    with pytest.raises(AppError, match="1 model calls, of which 1 model calls are spent"):
        await budgets.reserve(ACCOUNT, limits, an_ask("t.r.2", 2))


async def test_run_time_counts_from_an_attempts_first_call_to_its_end(client: Redis, budgets: Budgets) -> None:
    limits, name = {Owner.KEY: Limits(seconds=0.05)}, ACCOUNT.hashes()[3]

    async def calls() -> None:
        for number in itertools.count(1):
            ask = an_ask(number=number)
            await budgets.reserve(ACCOUNT, limits, ask)
            await budgets.settle(ACCOUNT, ask, NOTHING)

    with pytest.raises(AppError, match=r"It is 0\.05 s of run time, of which"):
        await asyncio.wait_for(calls(), 5)
    spent = int(str(await client.hget(name, "ms")))
    assert spent >= 50
    await budgets.close(ACCOUNT, 1)
    closed = int(str(await client.hget(name, "ms")))
    await budgets.close(ACCOUNT, 1)
    assert int(str(await client.hget(name, "ms"))) == closed >= spent


@pytest.mark.parametrize(
    ("limits", "output"),
    [(Limits(tokens=350), 250), (Limits(cost=0.0004), 150), (Limits(cost=0.0005, tokens=301), 200)],
)
async def test_the_answer_is_capped_to_what_is_left(
    client: Redis, budgets: Budgets, limits: Limits, output: int
) -> None:
    assert await granted(budgets, ACCOUNT, {Owner.KEY: limits}, an_ask()) == output
    kept = await budget(client, Owner.KEY)
    assert limits.tokens is None or kept["held_tokens"] <= limits.tokens
    assert limits.cost is None or kept["held_cost"] <= limits.cost * 1e6


async def test_a_call_waits_for_what_others_hold_instead_of_being_cut_short(client: Redis, budgets: Budgets) -> None:
    limits = {Owner.KEY: Limits(tokens=700)}
    other = replace(ACCOUNT, run="t.s", thread="u")
    assert await granted(budgets, ACCOUNT, limits, an_ask()) == 400
    assert await budgets.reserve(other, limits, an_ask("t.s.1")) is None
    await budgets.settle(ACCOUNT, an_ask(), Spent(0, 150))
    assert await granted(budgets, other, limits, an_ask("t.s.1")) == 400
    assert (await budget(client, Owner.KEY))["held_tokens"] == 500


async def test_a_model_without_a_price_costs_what_it_turns_out_to_cost(budgets: Budgets) -> None:
    limits = {Owner.RUN: Limits(cost=0.002)}
    for number in (1, 2):
        ask = an_ask(f"t.r.{number}", number, input_price=0.0, output_price=0.0)
        assert await granted(budgets, ACCOUNT, limits, ask) == 400
        await budgets.settle(ACCOUNT, ask, Spent(0.001, 15))
    with pytest.raises(AppError, match=r"It is \$0.002, of which \$0.002 are spent. Raise the run's max_cost"):
        await budgets.reserve(ACCOUNT, limits, an_ask("t.r.3", 3, input_price=0.0, output_price=0.0))


async def test_a_dead_attempts_call_counts_in_full_when_the_next_attempt_makes_it_again(
    client: Redis, budgets: Budgets
) -> None:
    await budgets.reserve(ACCOUNT, ROOMY, an_ask())
    await budgets.reserve(ACCOUNT, ROOMY, an_ask(epoch=2))
    assert await budget(client, Owner.KEY) == {
        **{"cost": 900, "tokens": 500, "turns": 1},
        **{"held_cost": 900, "held_tokens": 500, "held_turns": 1},
    }
    await budgets.settle(ACCOUNT, an_ask(), NOTHING)  # the dead one was only slow
    assert (await budget(client, Owner.KEY))["tokens"] == 500
    assert list(await held(client)) == ["t.r.1"]


async def test_a_dead_attempts_call_is_over_whichever_step_the_next_attempt_does(
    client: Redis, budgets: Budgets
) -> None:
    await budgets.reserve(ACCOUNT, ROOMY, an_ask("t.r.1"))
    await budgets.reserve(ACCOUNT, ROOMY, an_ask("t.r.2", epoch=2))
    assert list(await held(client)) == ["t.r.2"]
    assert (await budget(client, Owner.KEY))["tokens"] == 500


async def test_at_a_runs_end_what_it_holds_counts_in_full_and_it_reserves_nothing_more(
    client: Redis, budgets: Budgets
) -> None:
    await budgets.reserve(ACCOUNT, ROOMY, an_ask())
    await budgets.close(ACCOUNT, 1)
    assert (await budget(client, Owner.WORKSPACE))["tokens"] == 500
    assert await held(client) == {}
    with pytest.raises(Fenced):
        await budgets.reserve(ACCOUNT, ROOMY, an_ask(number=2))


async def test_a_call_of_which_nobody_knows_what_it_took_counts_in_full(client: Redis, budgets: Budgets) -> None:
    await budgets.reserve(ACCOUNT, ROOMY, an_ask())
    await budgets.settle(ACCOUNT, an_ask(), UNKNOWN)
    assert (await budget(client, Owner.RUN))["cost"] == 900


async def test_a_limit_that_was_raised_lets_the_next_call_through(budgets: Budgets) -> None:
    await budgets.reserve(ACCOUNT, {Owner.KEY: Limits(tokens=500)}, an_ask())
    await budgets.settle(ACCOUNT, an_ask(), UNKNOWN)
    with pytest.raises(AppError, match=r"Raise budget\.key_max_tokens and retry the run"):
        await budgets.reserve(ACCOUNT, {Owner.KEY: Limits(tokens=500)}, an_ask("t.r.2", 2))
    assert await granted(budgets, ACCOUNT, {Owner.KEY: Limits(tokens=1000)}, an_ask("t.r.2", 2)) == 400


async def test_what_the_journal_knows_of_a_run_counts_even_if_nothing_else_remembers(budgets: Budgets) -> None:
    limits = {Owner.RUN: Limits(tokens=1000), Owner.KEY: Limits(tokens=1000)}
    with pytest.raises(AppError, match="The budget of this run"):
        await budgets.reserve(ACCOUNT, limits, an_ask(spent_tokens=990))


@pytest.mark.parametrize("period", ["day", "month"])
async def test_a_new_period_begins_with_nothing_spent(client: Redis, budgets: Budgets, period: Period) -> None:
    limits = {Owner.KEY: Limits(tokens=500, period=period)}
    await budgets.reserve(ACCOUNT, limits, an_ask())
    await budgets.settle(ACCOUNT, an_ask(), UNKNOWN)
    with pytest.raises(AppError, match=f"500 tokens a {period} .*or wait for the next {period}"):
        await budgets.reserve(ACCOUNT, limits, an_ask("t.r.2", 2))
    await client.hset(ACCOUNT.hashes()[3], "window", f"{period} before")
    assert await granted(budgets, ACCOUNT, limits, an_ask("t.r.2", 2)) == 400


async def test_fifty_runs_at_once_on_one_key_never_spend_more_than_its_limit(redis_url: str, client: Redis) -> None:
    limits = {Owner.KEY: Limits(cost=0.02, tokens=12_000)}
    dice = random.Random(7)
    most, truth = [0, 0], [0.0, 0]

    async def run(i: int) -> int:
        """Makes calls until it is refused. How many it made."""
        mine = connect(redis_url, timeout_seconds=5, max_connections=2)
        budgets, account = Budgets(mine, patience_seconds=2), Account("w", "k", f"t{i}", f"t{i}.r")
        for number in range(1, 100):
            ask = an_ask(f"{account.run}.{number}", number)
            try:
                while (granted := await budgets.reserve(account, limits, ask)) is None:
                    await asyncio.sleep(0.005)
            except AppError:
                await mine.aclose()
                return number - 1
            kept = await budget(client, Owner.KEY, account)
            for n, what in enumerate(("cost", "tokens")):
                most[n] = max(most[n], kept[what] + kept[f"held_{what}"])
            spent = Spent(
                1e-6 * (100 + 2 * granted.output_tokens * dice.random()),
                100 + int(granted.output_tokens * dice.random()),
            )
            truth[0], truth[1] = truth[0] + (spent.cost or 0), truth[1] + (spent.tokens or 0)
            await budgets.settle(account, ask, spent)
        raise AssertionError("the budget has no end")

    calls = await asyncio.gather(*(run(i) for i in range(50)))
    assert sum(calls) > 20
    kept = await budget(client, Owner.KEY)
    assert kept["held_cost"] == kept["held_tokens"] == 0
    assert kept["tokens"] == truth[1]
    assert kept["cost"] == pytest.approx(truth[0] * 1e6, abs=sum(calls))
    assert max(most[0] / 20_000, most[1] / 12_000) <= 1
    # All of it can be used: what is left is too little for one call.
    assert max(kept["cost"] / 20_000, kept["tokens"] / 12_000) > 0.97
