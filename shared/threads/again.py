"""Retry and fork: a new run that begins with the finished steps of another. The other one stays as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from shared.errors import AppError, ErrorCode
from shared.threads.steps import StepRecord
from shared.threads.store import ThreadStore
from shared.threads.types import NewRun, NewThread, Origin, Run, Submitted
from shared.types import JSON, Runnable, RunStatus, StepStatus, WaitKind


async def retry(
    store: ThreadStore,
    run: Run,
    new_id: str,
    *,
    key_id: str | None,
    parameters: JSON | None = None,
    definition: JSON | None = None,
) -> Submitted:
    """From the step that failed; in the same thread. `key_id`: whose request it is, `parameters`: those that change.

    `definition`: in place of the run's.

    Raises AppError CONFLICT for a run that needs none.
    """
    if run.status not in (RunStatus.FAILED, RunStatus.CANCELED):
        raise AppError(
            ErrorCode.CONFLICT, f"Run {run.id} is {run.status}: only one that failed or was canceled can be retried."
        )
    journal = await store.journal(run.id)
    steps = [] if _taken_back(run) else kept_for_retry(run, journal)
    origin = _origin(run, "retried_from", steps, run.base if steps else None)
    again = await _again(store, run, new_id, origin, [*steps, *under_way(journal)])
    changed = {**run.parameters, **(parameters or {})}
    again = replace(again, key_id=key_id, parameters=changed, definition=definition or run.definition)
    return await store.submit(again, queued={"retried_from": run.id})


async def fork_run(
    store: ThreadStore, run: Run, new: NewThread, new_id: str, *, key_id: str | None, step: int, input: JSON | None
) -> Submitted:
    """From before a step (by its number), in a new thread with the conversation up to there.

    `input`: another one than the run's. Raises AppError INVALID_REQUEST where an agent has already worked with the old.
    """
    if input is not None and run.runnable_type is Runnable.AGENT and step > 1:
        raise AppError(
            ErrorCode.INVALID_REQUEST, "An agent's run with another task begins anew: fork it from its first step."
        )
    journal = [known for known in await store.journal(run.id) if known.number < step]
    steps = [known for known in journal if known.finished and known.status is not StepStatus.CANCELED]
    messages, base = await conversation(store, run, steps), run.base
    if _taken_back(run):
        steps, base = [], None
    elif base is not None and input is not None:
        messages, base = messages[:base], None
    elif base is not None:
        steps = _laid_out(steps, base + 1)
    await store.create_thread(new, messages)
    origin = _origin(run, "forked_from", steps, base)
    again = replace(await _again(store, run, new_id, origin, [*steps, *under_way(journal)]), key_id=key_id)
    again = again if input is None else replace(again, input=input)
    return await store.submit(again, queued={"forked_from": run.id})


async def conversation(store: ThreadStore, run: Run, steps: Sequence[StepRecord]) -> list[JSON]:
    """The thread's messages up to the run's, with those that its steps added, in the order of the steps."""
    messages = await store.messages(run.thread_id)
    if run.base is None:
        return messages
    if _taken_back(run):
        return messages[: run.base]
    own = [place for step in steps for place in range(step.place, step.place + step.messages)]
    moved = {place: run.base + 1 + nth for nth, place in enumerate(own)}
    return [*messages[: run.base + 1], *(_pointing(messages[place], moved) for place in own)]


def kept_for_retry(run: Run, steps: Sequence[StepRecord]) -> list[StepRecord]:
    """All that finished, but for the steps whose failure ended the run."""
    finished = [step for step in steps if step.finished and step.status is not StepStatus.CANCELED]
    culprits = set(run.culprits)
    if run.status is RunStatus.FAILED and not culprits:
        # One may have been caught, and told of later in other words. On an earlier one stands what was done after it.
        culprits = {step.key for step in finished[-1:] if step.status is StepStatus.FAILED}
    return [step for step in finished if step.key not in culprits]


def under_way(steps: Sequence[StepRecord]) -> list[StepRecord]:
    """Steps whose effect had begun (only those that must not be repeated unseen say so) and has no known outcome."""

    def asked(step: StepRecord) -> bool:
        unanswered = step.open or step.status is StepStatus.CANCELED
        return unanswered and step.wait is not None and step.wait.kind is WaitKind.OUTCOME

    return [
        replace(step, status=StepStatus.RUNNING, wait=None, inherited=True)
        for step in steps
        if step.status is StepStatus.RUNNING or asked(step)
    ]


def _taken_back(run: Run) -> bool:
    """Whether the conversation no longer has what the run's steps say that they added."""
    return run.rolled_back and run.base is not None


def _laid_out(steps: Sequence[StepRecord], place: int) -> list[StepRecord]:
    """With their messages one after another from that place on."""
    moved = []
    for step in steps:
        moved.append(replace(step, place=place))
        place += step.messages
    return moved


def _pointing(message: JSON, moved: Mapping[int, int]) -> JSON:
    """A summary of the conversation names places in it: those where the messages have gone."""
    if "compaction" not in message:
        return message
    return {**message, "compaction": {name: moved.get(at, at) for name, at in message["compaction"].items()}}


def _origin(run: Run, how: Any, steps: Sequence[StepRecord], base: int | None) -> Origin:
    numbers = {step.number for step in steps}
    unfinished = next(number for number in range(1, len(numbers) + 2) if number not in numbers)
    effects_of = run.effects_of if how == "retried_from" else None
    return Origin(run.id, how, unfinished, base, run.model, run.version, effects_of)


async def _again(store: ThreadStore, run: Run, new_id: str, origin: Origin, steps: Sequence[StepRecord]) -> NewRun:
    return NewRun(
        new_id,
        run.workspace,
        input=await store.payloads.value(run.input, run.input_ref),
        parameters=run.parameters,
        definition=run.definition,
        runnable_type=run.runnable_type,
        runnable_id=run.runnable_id,
        user_uuid=run.user_uuid,
        task_id=run.task_id,
        origin=origin,
        steps=await store.copies.make(steps, new_id),
    )
