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

SEVERAL = 3
"""Machines, of which more than half do not lose their threads between two looks."""

REFUSED = (
    "%s has %s machines of this installation, but Redis knows only %s of their threads: %s machines, files and all, "
    "would be removed as orphans, and none is. Is redis.url the Redis that they were made with? If it is, remove them "
    "by hand."
)

Threads = Callable[[Sequence[str]], Awaitable[Mapping[str, JSON | None]]]
"""Of thread ids: those that exist, each with the ref of its sandbox."""


async def sweep_orphans(cloud: Cloud, threads: Threads) -> list[str]:
    """Removes our machines of threads that are no more, and all but one of a thread that has several.

    Kept is the one that the thread's ref names, else the oldest; never one that failed. Where most of them would be of
    threads that are no more, the list of threads is not believed, and only those that failed are removed. Returns the
    ids of those removed. Raises MachineError, SandboxUnavailable.
    """
    machines: dict[str, list[Found]] = defaultdict(list)
    for found in await cloud.find():
        machines[found.thread_id].append(found)
    known = await threads(list(machines))
    orphans = []
    for thread_id, mine in machines.items():
        wanted = _wanted(mine, known[thread_id]) if thread_id in known else None
        orphans += [each for each in mine if each.machine_id != wanted and _old(each)]
    total = sum(map(len, machines.values()))
    astray = sum(each.thread_id not in known and not each.failed for each in orphans)
    if astray and (not known or (total >= SEVERAL and astray * 2 > total)):
        log.error(REFUSED, cloud.name, total, len(known), astray)
        orphans = [each for each in orphans if each.failed]
    return [machine_id for machine in orphans for machine_id in await _remove(cloud, machine)]


def _old(machine: Found) -> bool:
    return time.time() - machine.created_at > YOUNG_SECONDS


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
