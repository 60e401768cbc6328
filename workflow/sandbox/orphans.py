"""Machines that nobody wants any more, found by their labels: a crash or a thread's end must not leave one running."""

import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence

from shared.types import JSON
from workflow.sandbox.machine import Cloud, Found, MachineError
from workflow.sandbox.remote_provider import by_age

log = logging.getLogger("trunkline.sandbox")

YOUNG_SECONDS = 900.0
"""A younger machine is left alone: whoever made it may not have kept its ref yet."""

Threads = Callable[[Sequence[str]], Awaitable[Mapping[str, JSON | None]]]
"""Of thread ids: those that exist, each with the ref of its sandbox."""


async def sweep_orphans(cloud: Cloud, threads: Threads) -> list[str]:
    """Removes our machines of threads that are no more, and all but one of a thread that has several.

    Kept is the one that the thread's ref names, else the oldest; never one that failed. Returns the ids of those
    removed. Raises MachineError, SandboxUnavailable.
    """
    machines: dict[str, list[Found]] = defaultdict(list)
    for found in await cloud.find():
        machines[found.thread_id].append(found)
    known = await threads(list(machines))
    removed = []
    for thread_id, mine in machines.items():
        wanted = _wanted(mine, known[thread_id]) if thread_id in known else None
        for machine in mine:
            if machine.machine_id != wanted and time.time() - machine.created_at > YOUNG_SECONDS:
                removed += await _remove(cloud, machine)
    return removed


def _wanted(machines: Sequence[Found], ref: JSON | None) -> str | None:
    """None where none of them can run."""
    ids = [machine.machine_id for machine in by_age(machines)]
    return ref["id"] if ref and ref.get("id") in ids else next(iter(ids), None)


async def _remove(cloud: Cloud, machine: Found) -> list[str]:
    try:
        await cloud.remove(machine.machine_id)
    except MachineError as error:  # the others must go all the same
        log.warning("sandbox %s of thread %s could not be removed: %s", machine.machine_id, machine.thread_id, error)
        return []
    log.warning("sandbox %s of thread %s was an orphan and is removed", machine.machine_id, machine.thread_id)
    return [machine.machine_id]
