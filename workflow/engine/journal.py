"""Record and replay: which steps of a run are finished, and the one way to change that."""

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import orjson

from shared.errors import AppError, ErrorCode
from shared.threads.attempt import Attempt, Change
from shared.threads.steps import StepRecord
from shared.threads.types import NewEvent
from shared.types import JSON, StepStatus
from workflow.engine.parking import Parking
from workflow.engine.retry import in_words

TURNS_FOR_OTHERS = 3
"""Of the event loop, in which the other branches of a flow may ask for their recorded steps."""


@dataclass(frozen=True, slots=True)
class StepSpec:
    """What a step is. `key` is its identity within the run (`llm:4`, `tool:<id>`), whatever the order of steps.

    `input` (JSON) is what the step is done with: a replay whose input differs is refused.
    `shown` (JSON) is recorded as its input, where nothing else of the run tells it.
    `intent`: the start is committed before the body runs, whose effects must not be repeated unseen.
    `asks`: it is recorded with the start that a human decides where the outcome is not known.
    `effect`: the key that names the effect to the world outside, where several tries are one effect; else `key`.
    """

    key: str
    name: str
    kind: str
    input: Any = None
    intent: bool = False
    asks: bool = False
    effect: str | None = None
    shown: Any = None


class Journal:
    """The steps of one run, as its attempt knows them."""

    def __init__(self, attempt: Attempt, parking: Parking) -> None:
        self._attempt = attempt
        self._parking = parking
        self._closed = False
        self._parents: list[int] = []
        recorded = attempt.journal.values()
        self._steps = dict(attempt.journal)
        self._numbers = max((step.number for step in recorded), default=0)
        self._finished = {step.number for step in recorded if step.finished}
        self._unvisited = {step.key for step in recorded if step.finished}
        self._next_unfinished = 1
        self._advance()

    def known(self, key: str) -> StepRecord | None:
        """The step, if it was ever recorded."""
        return self._steps.get(key)

    @property
    def open_steps(self) -> list[StepRecord]:
        """Those that wait for an answer."""
        return [step for step in self._steps.values() if step.open]

    def close(self) -> None:
        """The attempt is broken off: whatever its flow still does, nothing of it is recorded."""
        self._closed = True

    async def open(self, spec: StepSpec) -> StepRecord:
        """The step as it is known, or a new one with the next number, `pending`.

        Raises AppError REPLAY_MISMATCH where the journal holds the same key for other work, or holds finished steps
        that the code does not ask for before it does something new; CancelledError once closed. Does not return for a
        new step after one was refused.
        """
        self._check_open()
        known = self._steps.get(spec.key)
        digest = hashlib.sha256(orjson.dumps([spec.name, spec.input], option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
        if known is None:
            if self._parking.drained:
                await self._parking.refuse()
            if self._unvisited and self._parking.alone():
                await self._let_others_visit()
                if self._parking.alone():
                    self.check_replayed()
            self._numbers += 1
            known = StepRecord(
                spec.key,
                self._numbers,
                spec.name,
                spec.kind,
                StepStatus.PENDING,
                digest,
                input=orjson.loads(orjson.dumps(spec.shown)),  # as it is now, whatever the flow does with it
                parents=self._parents,
            )
            self._steps[spec.key] = known
        elif known.input_hash != digest:
            raise AppError(
                ErrorCode.REPLAY_MISMATCH,
                f"Step {spec.key} of this run was recorded for {known.name!r} with another input than the code now "
                f"gives it ({spec.name!r}). The code has changed under a run in flight: undo the change, or register "
                "it under a new version, and retry the run.",
            )
        self._unvisited.discard(spec.key)
        return known

    def follow(self, keys: Iterable[str]) -> None:
        """New steps follow these, which are known, from now on."""
        self._parents = [self._steps[key].number for key in keys]

    def visit(self, key: str) -> None:
        """The code need not ask for the step any more: what it was for is asked for by another one."""
        self._unvisited.discard(key)

    def check_replayed(self) -> None:
        """Raises AppError REPLAY_MISMATCH where the code did not ask for a step that this run has finished."""
        if self._unvisited:
            missing = ", ".join(sorted(self._unvisited)[:5])
            raise AppError(
                ErrorCode.REPLAY_MISMATCH,
                f"This run has finished steps that the code no longer asks for ({missing}). The code has changed under "
                "a run in flight: undo the change, or register it under a new version, and retry the run.",
            )

    async def start(self, record: StepRecord, events: list[NewEvent]) -> StepRecord:
        """Commits that the step has started, before its effect. Raises Fenced."""
        return await self.move(replace(record, status=StepStatus.RUNNING), events)

    async def move(self, record: StepRecord, events: list[NewEvent]) -> StepRecord:
        """Commits an unfinished step's new state. Raises Fenced, TooLarge, CancelledError once closed."""
        self._check_open()
        [recorded] = await self._attempt.commit(Change(steps=[record], events=events))
        self._steps[record.key] = recorded
        return recorded

    async def finish(self, record: StepRecord, change: Change) -> None:
        """Commits the step's end together with what else it makes true. Raises as `move`."""
        self._check_open()
        self._finished.add(record.number)
        self._advance()
        fields: dict[str, str | int | bytes] = {"step": self._next_unfinished, **change.run}
        record = replace(record, messages=len(change.messages))
        [recorded] = await self._attempt.commit(replace(change, steps=[record], run=fields))
        self._steps[record.key] = recorded

    def learn(self, record: StepRecord) -> None:
        """The step was answered from outside."""
        self._steps[record.key] = record
        if record.finished:
            self._finished.add(record.number)
            self._advance()

    def _advance(self) -> None:
        while self._next_unfinished in self._finished:
            self._next_unfinished += 1

    def _check_open(self) -> None:
        if self._closed:
            raise asyncio.CancelledError("the attempt is broken off")

    async def _let_others_visit(self) -> None:
        for _ in range(TURNS_FOR_OTHERS):
            await asyncio.sleep(0)


def failure(error: AppError) -> JSON:
    """A failed step's or run's error, as it is recorded."""
    retryable = {"retryable": True} if getattr(error, "retryable", False) else {}
    return {"code": error.code, "detail": in_words(error.detail), **retryable}


def culprits(error: BaseException) -> list[str]:
    """The keys of the steps whose failure it is, or that it was raised for; of a group's, all of them."""
    found: list[str] = []
    seen: set[int] = set()
    left = [error]
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, AppError) and each.step_key is not None:
            found.append(each.step_key)
        elif isinstance(each, BaseExceptionGroup):
            left += each.exceptions
        elif cause := each.__cause__ or each.__context__:
            left.append(cause)
    return found
