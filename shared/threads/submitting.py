"""What `submit.lua` is called with, and what its refusals mean: a thread may have been evicted, or take no run."""

from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from shared.errors import AppError, ErrorCode
from shared.ids import minted_ms, thread_of
from shared.keys import thread_keys_of
from shared.payloads.blobs import Ref
from shared.threads.brief import encode_brief
from shared.threads.types import BusyPolicy, NewRun
from shared.types import JSON

YOUNG_MS = 30_000
"""No thread whose id is younger was evicted."""


class Cold(Protocol):
    """Where evicted threads are (shared.history)."""

    async def revive(self, thread_id: str, run_id: str | None = None) -> bool:
        """Whether the thread is in Redis now, with the run if there is one.

        Raises AppError UNAVAILABLE, NOT_FOUND: one of the two was deleted.
        """
        ...


def submission(
    new: NewRun,
    input_ref: Ref | None,
    queued: JSON,
    on_busy: BusyPolicy,
    interrupted: Sequence[str],
    *,
    ring_ms: int,
    sought: bool,
) -> tuple[list[str], list[Any]]:
    """The script's keys and arguments. `sought`: SQL was asked for the run, and does not have it."""
    k = thread_keys_of(new.id)
    steps = [k.journal(new.id), k.steps(new.id)]
    names = [k.metadata, k.run(new.id), k.runs, k.queue, k.stream, k.live, k.rings, k.timers, k.messages, *steps]
    names.append(k.dirty)
    names += [new.steps.journal, new.steps.index] if new.steps else steps
    for run_id in interrupted:
        names += [k.run(run_id), k.journal(run_id), k.waits(run_id), k.inbox(run_id)]
    names.append(k.gone(new.id))
    fields = new.fields(input_ref)
    blobs = [*([input_ref.marker] if input_ref else ()), *(new.steps.blobs if new.steps else ())]
    head: list[Any] = [k.thread_id, new.id, on_busy, ring_ms, encode_brief(queued), orjson.dumps({"reason": on_busy})]
    head.append("" if sought else minted_ms(new.id))
    lists = [len(interrupted), *interrupted, len(fields) // 2, *fields, len(blobs), *blobs]
    lists.append(new.steps.count if new.steps else 0)
    return names, [*head, *lists]


def refused(new: NewRun, answer: Sequence[str]) -> AppError:
    """Why a run was not taken."""
    match answer:
        case ["busy", head]:
            detail = f"The thread is busy with run {head}. Wait for its end, cancel it, or send on_busy=enqueue."
            return AppError(ErrorCode.CONFLICT, detail)
        case ["missing"]:
            return AppError(ErrorCode.UNAVAILABLE, "Copying the steps took more than an hour.", retry_after=1)
        case ["archived"]:
            return AppError(ErrorCode.CONFLICT, "The thread is archived and takes no more runs. Open a new one.")
        case ["deleted"]:
            return deleted(new.id)
    return AppError(ErrorCode.NOT_FOUND, f"There is no thread {thread_of(new.id)}.")


def deleted(member: str) -> AppError:
    """What becomes of whoever would have a deleted thread or run back."""
    return AppError(ErrorCode.NOT_FOUND, f"{'Run' if '.' in member else 'Thread'} {member} was deleted.")
