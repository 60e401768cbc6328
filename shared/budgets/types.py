"""What budgets are made of: whose they are, what they allow, and what a model call asks of them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from shared import keys
from shared.errors import AppError

Period = Literal["day", "month", "total"]
MICRO = 1_000_000
"""Money is counted in whole millionths of a US dollar."""


class Owner(StrEnum):
    """Whose a budget is, in the order of the scripts."""

    RUN = "run"
    THREAD = "thread"
    KEY = "key"
    WORKSPACE = "workspace"


@dataclass(frozen=True, slots=True)
class Account:
    """A run, with all whose budgets its calls count in. `key`: the id of the API key that it was made with."""

    workspace: str
    key: str | None
    thread: str
    run: str

    def hashes(self) -> list[str]:
        """As the scripts take them."""
        names = (("held", self.run), ("run", self.run), ("thread", self.thread), ("key", self.key or "-"))
        return [*(keys.budget(self.workspace, *name) for name in names), keys.budget(self.workspace, Owner.WORKSPACE)]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one budget allows in a period (of UTC); None is no limit. `cost` in USD, `turns` are model calls."""

    cost: float | None = None
    tokens: int | None = None
    turns: int | None = None
    seconds: float | None = None
    period: Period = "total"

    @property
    def any(self) -> bool:
        return any(limit is not None for limit in (self.cost, self.tokens, self.turns, self.seconds))

    def flat(self) -> list[str | int]:
        cost = None if self.cost is None else micro(self.cost)
        ms = None if self.seconds is None else round(self.seconds * 1000)
        return [self.period, *("" if limit is None else limit for limit in (cost, self.tokens, self.turns, ms))]


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Ask:
    """What a model call may take at most. `number` rises with each call of an attempt.

    `least_output`: fewer output tokens than that are not worth the call. Prices are in USD per token, 0 where unknown.
    `spent_cost` (USD) and `spent_tokens`: what the run's journal knows that the run has spent.
    """

    step_id: str
    epoch: int
    number: int
    input_tokens: int
    output_tokens: int
    least_output: int
    input_price: float = 0.0
    output_price: float = 0.0
    spent_cost: float = 0.0
    spent_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """How many output tokens a call may have. `end`: fewer than it asked for, and why."""

    output_tokens: int
    end: AppError | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """What a call really took; None where nobody knows, which counts as all that was reserved. `cost` in USD."""

    cost: float | None
    tokens: int | None
    turns: int | None = 1


NOTHING = Spent(0.0, 0, 0)
UNKNOWN = Spent(None, None, None)


def micro(dollars: float) -> int:
    return round(dollars * MICRO)
