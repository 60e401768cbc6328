"""Where a run is submitted: a thread that may have been evicted, or that takes no run."""

from collections.abc import Sequence
from typing import Protocol

from shared.errors import AppError, ErrorCode
from shared.ids import thread_of
from shared.threads.types import NewRun

YOUNG_MS = 30_000
"""No thread whose id is younger was evicted."""


class Cold(Protocol):
    """Where evicted threads are (shared.history)."""

    async def revive(self, thread_id: str, run_id: str | None = None) -> bool:
        """Whether the thread is in Redis now, with the run if there is one. Raises AppError UNAVAILABLE."""
        ...


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
    return AppError(ErrorCode.NOT_FOUND, f"There is no thread {thread_of(new.id)}.")
