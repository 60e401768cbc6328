"""A run's budget: what its model calls may take, of its own and of all that it counts in (shared/budgets)."""

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import asdict, replace

from shared.budgets.exhausted import exhausted
from shared.budgets.store import Budgets
from shared.budgets.types import NO_LIMITS, NOTHING, UNKNOWN, Account, Ask, Grant, Limits, Owner, Spent
from shared.config import Settings
from shared.errors import AppError
from shared.threads.types import Holding, Run
from shared.types import JSON
from workflow.agent.shares import Left, Taken
from workflow.llm.types import (
    NO_PRICE,
    NO_USAGE,
    Model,
    ModelAround,
    ModelError,
    ModelRequest,
    ModelResponse,
    Price,
    TextDelta,
    ThinkingDelta,
    Usage,
)

LEAST_OUTPUT = 256
"""Tokens. An answer that may not be longer than that is seldom worth its call."""
MARGIN = 4 / 3
"""An estimate of input tokens may be a quarter below the truth."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0
"""Between looks whether other calls have given back what they held."""


def account_of(run: Run | Holding) -> Account:
    return Account(run.workspace, run.key_id, run.thread_id, run.id)


def limits_of(run: Run, settings: Settings) -> dict[Owner, Limits]:
    """What Redis counts for. A run's turns and seconds are no part of it: its own worker can count them."""
    agent, budget, parameters = settings.agent, settings.budget, run.options
    limits = {
        Owner.RUN: Limits(
            cost=parameters.get("max_cost", agent.max_cost), tokens=parameters.get("max_tokens", agent.max_tokens)
        ),
        Owner.THREAD: Limits(
            cost=budget.thread_max_cost,
            tokens=budget.thread_max_tokens,
            turns=budget.thread_max_turns,
            seconds=budget.thread_max_seconds,
        ),
        Owner.WORKSPACE: Limits(
            cost=budget.workspace_max_cost,
            tokens=budget.workspace_max_tokens,
            turns=budget.workspace_max_turns,
            seconds=budget.workspace_max_seconds,
            period=budget.workspace_period,
        ),
    }
    if run.key_id is not None:
        limits[Owner.KEY] = Limits(
            cost=budget.key_max_cost,
            tokens=budget.key_max_tokens,
            turns=budget.key_max_turns,
            seconds=budget.key_max_seconds,
            period=budget.key_period,
        )
    return {owner: limit for owner, limit in limits.items() if limit.any}


def seconds_limit(run: Run, settings: Settings) -> float:
    """How long workers may have it in their hands, all attempts together."""
    limit: float = run.options.get("max_seconds", settings.agent.max_seconds)
    return limit


def late(run: Run, limit: float) -> AppError:
    """The error of a run that has taken its time."""
    return exhausted(account_of(run), Owner.RUN, "ms", limit=round(limit * 1000), spent=round(limit * 1000))


class RunBudget:
    """Of one attempt, whose calls come one after another. `usage`: of the run so far, as its journal knows it.

    Without any limit it only adds up, and asks nobody.
    """

    def __init__(self, run: Run, budgets: Budgets, settings: Settings) -> None:
        parameters, agent = run.options, settings.agent
        self.max_turns: int = parameters.get("max_turns", agent.max_turns)
        self.usage = NO_USAGE
        self._max_delegates: int = parameters.get("max_delegates", agent.max_delegates)
        self._delegated = Taken()
        self._run = run
        self._account = account_of(run)
        self._limits: Mapping[Owner, Limits] = limits_of(run, settings)
        self._budgets = budgets
        self._calls = 0
        self._known_cost = 0.0

    def count(self, usage: Usage) -> None:
        """A call's, done by this attempt or found in the journal."""
        self.usage += usage
        self._known_cost += usage.cost or 0.0

    def count_delegate(self, taken: Taken) -> None:
        """What it spent is spent for this run, too."""
        self._delegated += taken

    def left(self) -> Left:
        limits = self._limits.get(Owner.RUN, NO_LIMITS)
        return Left(
            self._max_delegates - self._delegated.runs,
            None if limits.tokens is None else limits.tokens - self._known_tokens,
            None if limits.cost is None else limits.cost - self._known_cost - self._delegated.cost,
        )

    def usage_with(self, more: Usage) -> JSON:
        """The run's usage with a call's. Its delegates' stands beside, as they are runs with an usage of their own."""
        delegated = {"delegated": asdict(self._delegated)} if self._delegated.runs else {}
        return (self.usage + more).as_json() | delegated

    def bill(self) -> JSON:
        return {"usage": self.usage_with(NO_USAGE), "cost": self.usage.cost}

    @property
    def _known_tokens(self) -> int:
        return self.usage.input_tokens + self.usage.output_tokens + self._delegated.tokens

    def check_turn(self, turn: int) -> None:
        """Raises AppError BUDGET_EXHAUSTED."""
        if turn > self.max_turns:
            raise exhausted(self._account, Owner.RUN, "turns", limit=self.max_turns, spent=turn - 1)

    def paid(self, model: Model, step_id: str, *, input_tokens: int, output_tokens: int) -> Model:
        """The model, for one step's calls: what we think that it reads, and the longest answer that we let it give."""
        return (
            PaidModel(model, self, step_id, (math.ceil(input_tokens * MARGIN), output_tokens))
            if self._limits
            else model
        )

    async def reserve(self, ask: Ask) -> Grant:
        """Waits while other calls hold what there is. Raises AppError BUDGET_EXHAUSTED, Fenced."""
        pause = FIRST_PAUSE_SECONDS
        while (grant := await self._budgets.reserve(self._account, self._limits, ask)) is None:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return grant

    async def settle(self, ask: Ask, spent: Spent) -> None:
        await self._budgets.settle(self._account, ask, spent)

    async def close(self) -> None:
        """The attempt makes no more calls; one that was broken off counts in full."""
        if self._limits:
            await self._budgets.close(self._account, self._run.epoch)

    def ask(self, step_id: str, price: Price, input_tokens: int, output_tokens: int) -> Ask:
        """For the attempt's next call."""
        self._calls += 1
        return Ask(
            step_id=step_id,
            epoch=self._run.epoch,
            number=self._calls,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            least_output=min(LEAST_OUTPUT, output_tokens),
            input_price=price.input,
            output_price=price.output,
            spent_cost=self._known_cost + self._delegated.cost,
            spent_tokens=self._known_tokens,
        )


class PaidModel(ModelAround):
    """A model whose every call is reserved before it begins, capped to what is left, and settled when it is over."""

    def __init__(self, model: Model, budget: RunBudget, step_id: str, most: tuple[int, int]) -> None:
        super().__init__(model)
        self._budget = budget
        self._step_id = step_id
        self._most = most

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ThinkingDelta | ModelResponse, None]:
        """See `Model.stream`. Raises AppError BUDGET_EXHAUSTED, Fenced."""
        ask = self._budget.ask(self._step_id, self.price or NO_PRICE, *self._most)
        grant = await self._budget.reserve(ask)
        begun = False
        try:
            async with aclosing(self._model.stream(replace(request, max_output_tokens=grant.output_tokens))) as items:
                async for item in items:
                    if isinstance(item, ModelResponse):
                        await self._budget.settle(ask, taken(item.usage, self.price))
                        if grant.end is not None and item.finish_reason == "length":
                            raise grant.end
                    begun = True
                    yield item
        except ModelError:
            # What never began to answer is not billed; what broke off is, and nobody says how much.
            await self._budget.settle(ask, UNKNOWN if begun else NOTHING)
            raise


def taken(usage: Usage, price: Price | None) -> Spent:
    """What a call took, by its usage; by the price where the bill is not known."""
    tokens = usage.input_tokens + usage.output_tokens
    if usage.cost is None and tokens == 0:
        return UNKNOWN
    price = price or NO_PRICE
    cost = usage.input_tokens * price.input + usage.output_tokens * price.output if usage.cost is None else usage.cost
    return Spent(cost, tokens)
