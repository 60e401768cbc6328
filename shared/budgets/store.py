"""Budgets: with the Lua scripts beside it, the only code that changes them.

A model call is reserved, then settled. What it reserves is as much as it may take, in every budget that it counts in:
so any number of calls at once spend no more than is allowed. All calls may be repeated.
"""

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from shared.budgets.exhausted import exhausted
from shared.budgets.types import NO_LIMITS, Account, Ask, Grant, Limits, Owner, Spent, micro
from shared.errors import AppError
from shared.scripts import Scripts
from shared.threads.attempt import Fenced

OWNERS = tuple(Owner)


class Budgets:
    """All workspaces' budgets in one Redis.

    `patience_seconds`, `replicas`: as of `Scripts`.
    """

    def __init__(self, client: Redis, *, patience_seconds: float | None, replicas: int = 0) -> None:
        self._scripts = Scripts(
            client, __package__, "reserve", "settle", "close", patience_seconds=patience_seconds, replicas=replicas
        )

    async def reserve(self, account: Account, limits: Mapping[Owner, Limits], ask: Ask) -> Grant | None:
        """Sets aside what a call may take. None: ask again later.

        Later: there is enough, but other calls hold it until they have ended. Raises AppError BUDGET_EXHAUSTED, Fenced.
        """
        prices = [repr(ask.input_price * 1e6), repr(ask.output_price * 1e6)]
        answer = await self._call(
            "reserve",
            account,
            [
                *(ask.step_id, ask.epoch, ask.number, ask.input_tokens, ask.output_tokens, ask.least_output, *prices),
                *(micro(ask.spent_cost), ask.spent_tokens),
                *(value for owner in OWNERS for value in limits.get(owner, NO_LIMITS).flat()),
            ],
        )
        match answer:
            case ["granted", output_tokens, why]:
                return Grant(int(output_tokens), _exhausted(account, limits, why) if why else None)
            case ["busy"]:
                return None
            case ["refused", why]:
                raise _exhausted(account, limits, why)
        raise Fenced(f"{account.run}: epoch {ask.epoch} is over; its call {ask.number} may not be made")

    async def settle(self, account: Account, ask: Ask, spent: Spent) -> None:
        """The call is over. Without its reservation nothing changes: somebody has settled it in full."""
        cost = "" if spent.cost is None else micro(spent.cost)
        amounts = ["" if amount is None else amount for amount in (spent.tokens, spent.turns)]
        await self._call("settle", account, [ask.step_id, ask.epoch, ask.number, cost, *amounts])

    async def close(self, account: Account, epoch: int, *, patience_seconds: float | None = None) -> None:
        """The run's attempts up to this one are over: what their calls hold counts as spent."""
        await self._call("close", account, [epoch], patience_seconds)

    async def _call(
        self, name: str, account: Account, args: list[Any], patience_seconds: float | None = None
    ) -> list[Any]:
        answer: list[Any] = await self._scripts.call(name, account.hashes(), args, patience_seconds=patience_seconds)
        return answer


def _exhausted(account: Account, limits: Mapping[Owner, Limits], why: str) -> AppError:
    number, what, limit, spent = why.split()
    owner = OWNERS[int(number) - 1]
    return exhausted(account, owner, what, limit=int(limit), spent=int(spent), period=limits[owner].period)
