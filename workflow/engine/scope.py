"""What a step's body is given, and what it gives back."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.threads.attempt import Attempt
from shared.threads.steps import StepRecord
from shared.threads.types import NewEvent
from shared.types import JSON, StepStatus


class AskHuman(Exception):
    """Nobody here can tell whether the step's effect took place: somebody else finds out, and decides."""


class Postponed(Exception):
    """The step cannot be done before a point in time, by Redis' clock: it is neither done nor failed."""

    def __init__(self, until: datetime) -> None:
        super().__init__(f"not before {until}")
        self.until = until


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step's body gives back. `result` is JSON, kept for replay; `events` come before `step.completed`."""

    result: Any
    messages: Sequence[JSON] = ()
    events: Sequence[tuple[str, JSON]] = ()
    run: dict[str, str | int | bytes] = field(default_factory=dict)
    status: StepStatus = StepStatus.SUCCEEDED


class StepScope:
    """What a running step's body may use."""

    def __init__(self, attempt: Attempt, record: StepRecord, effect: str) -> None:
        self._attempt = attempt
        self.number = record.number
        self.run_id = attempt.run.id
        self.step_id = f"{attempt.run.id}.{record.number}"
        self.effect_key = f"{attempt.run.effects_of}/{effect}"
        """Names the effect to the world outside, the same in every attempt and try, and in a retry of the run."""
        self.key = f"{attempt.run.id}/{effect}"
        """Names the call to a sandbox, the same in every attempt: it tells a repeated one by it."""
        self.epoch = attempt.run.epoch
        self.inherited = record.inherited
        """Whether it was another run that began the effect: its key is not known here."""
        self.asks = record.asks
        """Whether a human was to decide where its outcome is not known, when it was started."""

    async def emit(self, events: Sequence[tuple[str, JSON]]) -> None:
        """Events that stand for nothing durable (text deltas, a command's output). Raises Fenced."""
        await self._attempt.emit([NewEvent(kind, data, self.number) for kind, data in events])


Body = Callable[[StepScope], Awaitable[Outcome]]
Recovery = Callable[[StepScope], Awaitable[Outcome | None]]
Settle = Callable[[StepScope, JSON], Outcome]
