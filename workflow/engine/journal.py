"""Record and replay: which steps of a run are finished, and the one way to change that."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import orjson

from shared.errors import AppError, ErrorCode
from shared.threads.attempt import Attempt, Change
from shared.threads.types import NewEvent, StepRecord
from shared.types import StepStatus

FINISHED = frozenset({StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.UNKNOWN, StepStatus.CANCELED})


@dataclass(frozen=True, slots=True)
class StepSpec:
    """What a step is. `key` is its identity within the run (`llm:4`, `tool:<id>`), whatever the order of steps.

    `input` (JSON) is what the step is done with: a replay whose input differs is refused.
    `intent`: the start is committed before the body runs, whose effects must not be repeated unseen.
    """

    key: str
    name: str
    kind: str
    input: Any = None
    intent: bool = False


class Journal:
    """The steps of one run, as its attempt knows them."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._steps = {step.key: step for step in attempt.journal}
        self._numbers = max((step.number for step in attempt.journal), default=0)
        self._finished = {step.number for step in attempt.journal if step.status in FINISHED}
        self._next_unfinished = 1
        self._advance()

    def open(self, spec: StepSpec) -> StepRecord:
        """The step as it is known, or a new one with the next number, `pending`.

        Raises AppError REPLAY_MISMATCH where the journal holds the same key for other work.
        """
        digest = hashlib.sha256(orjson.dumps([spec.name, spec.input], option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
        known = self._steps.get(spec.key)
        if known is None:
            self._numbers += 1
            known = StepRecord(spec.key, self._numbers, spec.name, spec.kind, StepStatus.PENDING, digest)
            self._steps[spec.key] = known
        elif known.input_hash != digest:
            raise AppError(
                ErrorCode.REPLAY_MISMATCH,
                f"Step {spec.key} of this run was recorded for {known.name!r} with another input than the code now "
                f"gives it ({spec.name!r}). The code has changed under a run in flight: run it again.",
            )
        return known

    async def start(self, record: StepRecord, events: list[NewEvent]) -> StepRecord:
        """Commits that the step has started, before its effect. Raises Fenced."""
        record = replace(record, status=StepStatus.RUNNING)
        await self._attempt.commit(Change(steps=[record], events=events))
        self._steps[record.key] = record
        return record

    async def finish(self, record: StepRecord, change: Change) -> None:
        """Commits the step's end together with what else it makes true. Raises Fenced."""
        self._finished.add(record.number)
        self._advance()
        fields = {"step": self._next_unfinished, **change.run}
        await self._attempt.commit(replace(change, steps=[record], run=fields))
        self._steps[record.key] = record

    def _advance(self) -> None:
        while self._next_unfinished in self._finished:
            self._next_unfinished += 1
