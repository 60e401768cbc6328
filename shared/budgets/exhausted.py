"""The error of a run whose budget is used up: which budget, whose, its limit, and what to raise."""

from shared.budgets.types import MICRO, Account, Owner, Period
from shared.errors import AppError, ErrorCode

SETTING = {"cost": "max_cost", "tokens": "max_tokens", "turns": "max_turns", "ms": "max_seconds"}
WINDOW = {"day": " a day (UTC)", "month": " a month (UTC)", "total": ""}
LATER = {"day": ", or wait for the next day,", "month": ", or wait for the next month,", "total": ""}


def exhausted(
    account: Account, owner: Owner, what: str, *, limit: int, spent: int, period: Period = "total"
) -> AppError:
    """`what`: cost (micro-USD), tokens, turns or ms, as `limit` and `spent` are."""
    left = f"{_amount(what, limit)}{WINDOW[period]}, of which {_amount(what, spent)} are spent"
    enough = "" if spent >= limit else ": too little for the next model call"
    return AppError(
        ErrorCode.BUDGET_EXHAUSTED,
        f"The budget of {_whose(account, owner)} is used up. It is {left}{enough}. "
        f"Raise {_setting(owner, what)}{LATER[period]} and retry the run.",
    )


def _whose(account: Account, owner: Owner) -> str:
    match owner:
        case Owner.RUN:
            return "this run"
        case Owner.THREAD:
            return "this thread"
        case Owner.KEY:
            return f"the key {account.key}"
    return f"the workspace {account.workspace}"


def _setting(owner: Owner, what: str) -> str:
    if owner is Owner.RUN:
        return f"the run's {SETTING[what]} (agent.{SETTING[what]} is its default)"
    return f"budget.{owner}_{SETTING[what]}"


def _amount(what: str, amount: int) -> str:
    match what:
        case "cost":
            return f"${amount / MICRO:,.6f}".rstrip("0").rstrip(".")
        case "tokens":
            return f"{amount:,} tokens"
        case "turns":
            return f"{amount:,} model calls"
    return f"{amount / 1000:g} s of run time"
