"""What a run's delegates may take, all together and with theirs: what is left, divided among those of one turn."""

from dataclasses import dataclass
from typing import Self

from shared.types import JSON

LEAST_COST = 0.0001
"""US dollars. Of a run that has spent all that it may, a delegate ends with its first call."""


@dataclass(frozen=True, slots=True)
class Taken:
    """How many delegates there were, and what they spent. `cost` in US dollars."""

    runs: int = 0
    tokens: int = 0
    cost: float = 0.0

    @classmethod
    def by(cls, usage: JSON) -> Self:
        """A delegate and its own, by its run's usage. What nobody knows the price of cost nothing."""
        own = cls(**usage.get("delegated", {}))
        tokens = usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
        return cls(1 + own.runs, tokens + own.tokens, (usage.get("cost") or 0.0) + own.cost)

    def __add__(self, other: "Taken") -> "Taken":
        return Taken(self.runs + other.runs, self.tokens + other.tokens, self.cost + other.cost)


@dataclass(frozen=True, slots=True)
class Left:
    """Of what a run may spend, and of the delegates that it may have. None: no limit."""

    runs: int
    tokens: int | None
    cost: float | None

    def share(self, nth: int, count: int) -> "Left | None":
        """For the nth (from 0) of so many delegates that begin together; None: there is none for it.

        As they depend on nothing that becomes of the others, the shares are the same when the turn is replayed.
        """
        if nth >= self.runs:
            return None
        among = min(count, self.runs)
        tokens = None if self.tokens is None else max(1, self.tokens // among)
        cost = None if self.cost is None else max(LEAST_COST, self.cost / among)
        return Left(self.runs // among - 1, tokens, cost)

    def parameters(self) -> JSON:
        """As a run has them that may have no more than this."""
        limits = {"max_delegates": self.runs, "max_tokens": self.tokens, "max_cost": self.cost}
        return {name: limit for name, limit in limits.items() if limit is not None}
