"""Budgets over a real Valkey, read back as they lie there."""

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from shared import keys
from shared.budgets.types import Account, Ask, Owner

NAMES = ("cost", "tokens", "turns", "held_cost", "held_tokens", "held_turns")
ACCOUNT = Account("w", "k", "t", "t.r")


def an_ask(step: str = "t.r.1", number: int = 1, **other: Any) -> Ask:
    """A call of at most 100 + 400 tokens, at $1 and $2 a million."""
    asks = {"epoch": 1, "input_tokens": 100, "output_tokens": 400, "least_output": 50}
    return Ask(step_id=step, number=number, **{**asks, "input_price": 1e-6, "output_price": 2e-6, **other})


async def budget(client: Redis, owner: Owner, account: Account = ACCOUNT) -> dict[str, int]:
    """Micro-USD, tokens, calls; without the time."""
    found: Any = await client.hgetall(account.hashes()[1 + list(Owner).index(owner)])
    return amounts(found)


def amounts(fields: Mapping[str, str]) -> dict[str, int]:
    return {name: int(fields.get(name, 0)) for name in NAMES}


async def held(client: Redis, account: Account = ACCOUNT) -> dict[str, str]:
    found: Any = await client.hgetall(keys.budget(account.workspace, "held", account.run))
    return {step: text for step, text in found.items() if not step.startswith(".")}
