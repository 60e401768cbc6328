"""Budgets under crashes, zombies and repeated calls: nothing is ever spent that the limits do not allow.

Hypothesis drives runs of two keys through their calls; after every step all budgets are read back and compared with a
plain account of what was granted and spent.
"""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from redis.asyncio import Redis

from shared.budgets.store import Budgets
from shared.budgets.types import UNKNOWN, Account, Ask, Limits, Owner, Spent
from shared.errors import AppError
from shared.redis import connect
from shared.threads.attempt import Fenced
from tests.shared.budgets.support import amounts, an_ask

LIMITS = {
    Owner.RUN: Limits(cost=0.004, tokens=1500),
    Owner.THREAD: Limits(tokens=2500, turns=9),
    Owner.KEY: Limits(cost=0.006, period="day"),
    Owner.WORKSPACE: Limits(cost=0.01, tokens=6000, turns=20, period="month"),
}
RUNS = [Account("w", f"k{i % 2}", f"t{i % 3}", f"t{i % 3}.r{i}") for i in range(4)]


@dataclass
class Live:
    """A run as its worker knows it. `open`: reserved calls that are not settled, `past`: those that are."""

    account: Account
    epoch: int = 1
    number: int = 0
    open: list[tuple[Ask, int]] = field(default_factory=list)
    past: list[tuple[Ask, Spent]] = field(default_factory=list)
    over: bool = False


class Spenders(RuleBasedStateMachine):
    url: str

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.Runner()
        self.client: Redis = connect(self.url, timeout_seconds=5, max_connections=4)
        self.budgets = Budgets(self.client, patience_seconds=2)
        self.runs = [Live(account) for account in RUNS]
        self.spent = {name: [0, 0, 0] for account in RUNS for name in account.hashes()[1:]}
        self.sent: list[tuple[str, Account, list[Any]]] = []
        call = self.deliver = self.budgets._call

        async def remembered(name: str, account: Account, args: list[Any], patience: float | None = None) -> list[Any]:
            self.sent.append((name, account, args))
            return await call(name, account, args, patience)

        self.budgets._call = remembered  # type: ignore[assignment, method-assign]

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.do(self.client.flushall())
            self.do(self.client.aclose())
            self.loop.close()

    def do(self, call: Any) -> Any:
        async def awaited() -> Any:
            return await call

        return self.loop.run(awaited())

    @rule(i=st.integers(0, 3), step=st.integers(1, 3), most=st.sampled_from([100, 400, 2000]), price=st.booleans())
    def reserve(self, i: int, step: int, most: int, price: bool) -> None:
        """The step's earlier call, if it is still open, was given up."""
        run = self.runs[i]
        run.number += 1
        prices = {} if price else {"input_price": 0.0, "output_price": 0.0}
        step_id = f"{run.account.run}.{step}"
        ask = an_ask(step_id, run.number, epoch=run.epoch, output_tokens=most, **prices)
        try:
            grant = self.do(self.budgets.reserve(run.account, LIMITS, ask))
        except Fenced:
            assert run.over
            return
        except AppError:
            grant = None
        assert not run.over
        for other in [o for o in run.open if o[0].epoch < run.epoch or o[0].step_id == step_id]:
            self.count(run, *other, UNKNOWN)
        if grant is not None:
            assert 50 <= grant.output_tokens <= most
            run.open.append((ask, grant.output_tokens))

    @precondition(lambda self: any(run.open for run in self.runs))
    @rule(data=st.data(), share=st.none() | st.floats(0, 1))
    def settle(self, data: st.DataObject, share: float | None) -> None:
        run = data.draw(st.sampled_from([run for run in self.runs if run.open]))
        ask, granted = data.draw(st.sampled_from(run.open))
        cost, tokens, _ = most_of(ask, granted)
        spent = UNKNOWN if share is None else Spent(int(cost * share) / 1e6, int(tokens * share))
        self.do(self.budgets.settle(run.account, ask, spent))
        self.count(run, ask, granted, spent)

    @precondition(lambda self: any(run.past for run in self.runs))
    @rule(data=st.data())
    def settle_once_more(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from([run for run in self.runs if run.past]))
        ask, spent = data.draw(st.sampled_from(run.past))
        self.do(self.budgets.settle(run.account, ask, replace(spent, tokens=7)))

    @rule(i=st.integers(0, 3), noticed=st.booleans())
    def die(self, i: int, noticed: bool) -> None:
        """A worker dies; whoever takes the run from it closes its budget, or the next attempt's call does."""
        run = self.runs[i]
        if run.over:
            return
        if noticed:
            self.close(run, run.epoch)
        run.epoch, run.number = run.epoch + 1, 0

    @rule(i=st.integers(0, 3), ends=st.sampled_from([True, False, False, False]))
    def end(self, i: int, ends: bool) -> None:
        if ends:
            self.close(self.runs[i], self.runs[i].epoch)
            self.runs[i].over = True

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        """A network repeats what it was given long ago. A call that was refused then may be granted now, as if new."""
        name, account, args = data.draw(st.sampled_from(self.sent))
        run = next(run for run in self.runs if run.account == account)
        if name == "close":
            return self.close(run, args[0])
        before = self.do(self.contents())
        answer = self.do(self.deliver(name, account, args))
        if self.do(self.contents()) != before:
            assert (name, args[1], args[2]) == ("reserve", run.epoch, run.number)
            self.close(run, run.epoch)
            if answer[0] == "granted":
                self.add(account, 0 if args[6] == "0.0" else 100 + 2 * answer[1], 100 + answer[1], 1)
            run.epoch, run.number = run.epoch + 1, 0
        return None

    @invariant()
    def nothing_is_overspent_and_nothing_is_lost(self) -> None:
        if hasattr(self, "runs"):
            self.do(self.judge())

    async def judge(self) -> None:
        names = sorted({name for account in RUNS for name in account.hashes()})
        pipeline = self.client.pipeline(transaction=False)
        for name in names:
            pipeline.hgetall(name)
        found = dict(zip(names, await pipeline.execute(), strict=True))
        for run in self.runs:
            reserved, *budgets = run.account.hashes()
            steps = sorted(step for step in found[reserved] if not step.startswith("."))
            assert steps == sorted(ask.step_id for ask, _ in run.open)
            for owner, name in zip(Owner, budgets, strict=True):
                self.judge_budget(LIMITS[owner], name, amounts(found[name]))

    def judge_budget(self, limits: Limits, name: str, kept: dict[str, int]) -> None:
        calls = [most_of(*call) for run in self.runs for call in run.open if name in run.account.hashes()]
        allowed = (None if limits.cost is None else round(limits.cost * 1e6), limits.tokens, limits.turns)
        for n, what in enumerate(("cost", "tokens", "turns")):
            held, spent = kept[f"held_{what}"], kept[what]
            assert (spent, held) == (self.spent[name][n], sum(call[n] for call in calls))
            limit = allowed[n]
            assert limit is None or spent + held <= limit

    async def contents(self) -> list[Any]:
        """All but the time that passes."""
        found = []
        async for key in self.client.scan_iter():
            fields: Any = await self.client.hgetall(key)
            found.append((key, {name: value for name, value in fields.items() if name not in ("ms", ".seen")}))
        return sorted(found, key=lambda item: str(item[0]))

    def close(self, run: Live, epoch: int) -> None:
        self.do(self.budgets.close(run.account, epoch))
        for other in [other for other in run.open if other[0].epoch <= epoch]:
            self.count(run, *other, UNKNOWN)

    def count(self, run: Live, ask: Ask, granted: int, spent: Spent) -> None:
        run.open.remove((ask, granted))
        run.past.append((ask, spent))
        cost, tokens, turns = most_of(ask, granted)
        if spent.tokens is not None and spent.cost is not None:
            cost, tokens = round(spent.cost * 1e6), spent.tokens
        self.add(run.account, cost, tokens, turns)

    def add(self, account: Account, cost: int, tokens: int, turns: int) -> None:
        for name in account.hashes()[1:]:
            self.spent[name] = [a + b for a, b in zip(self.spent[name], (cost, tokens, turns), strict=True)]


def most_of(ask: Ask, granted: int) -> tuple[int, int, int]:
    """What the call holds: micro-USD, tokens, calls."""
    cost = ask.input_tokens * ask.input_price + granted * ask.output_price
    return round(cost * 1e6), ask.input_tokens + granted, 1


def test_no_order_of_calls_crashes_and_repeats_overspends_a_budget(redis_url: str) -> None:
    Spenders.url = redis_url
    run_machine(
        Spenders,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
