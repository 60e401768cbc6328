"""What threads that are gone have left: machines elsewhere, found by their labels, and workspaces on a sandbox host.

Only the Redis that they were made with is asked whether a thread is gone: to any other one, all are.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence

from shared.types import JSON
from workflow.sandbox.local import LocalProvider
from workflow.sandbox.machine import Cloud, Found, MachineError
from workflow.sandbox.remote_provider import by_age

log = logging.getLogger("trunkline.sandbox")

YOUNG_SECONDS = 900.0
"""A younger machine is left alone: whoever made it may not have kept its ref yet."""

UNUSED_SECONDS = 24 * 3600.0
"""A workspace that was used since is left alone."""

STRANGE = (
    "%s has %s machines of this installation that were made with another Redis: nobody here knows their threads, and "
    "they are left alone. Is redis.url the right one? If that Redis is no more, remove them by hand: their label "
    "trunkline-redis is not %s."
)

Threads = Callable[[Sequence[str]], Awaitable[Mapping[str, JSON | None]]]
"""Of thread ids: those that are not gone, each with the ref of its sandbox."""


async def sweep_machines(cloud: Cloud, redis: str, threads: Threads) -> list[str]:
    """Removes our machines of threads that are no more, and all but one of a thread that has several.

    Kept is the one that the thread's ref names, else the oldest; never one that failed, with whatever Redis it was
    made. `redis`: the name of the one that `threads` asks. Returns the ids of those removed. Raises MachineError,
    SandboxUnavailable.
    """
    all_found = await cloud.find()
    orphans = [each for each in all_found if each.failed and _old(each)]
    machines: dict[str, list[Found]] = defaultdict(list)
    for found in all_found:
        if found.redis == redis and not found.failed:
            machines[found.thread_id].append(found)
    if strange := sum(found.redis != redis and not found.failed for found in all_found):
        log.error(STRANGE, cloud.name, strange, redis)
    known = await threads(list(machines))
    for thread_id, mine in machines.items():
        wanted = _wanted(mine, known[thread_id]) if thread_id in known else None
        orphans += [each for each in mine if each.machine_id != wanted and _old(each)]
    return [machine_id for machine in orphans for machine_id in await _remove(cloud, machine)]


async def sweep_workspaces(provider: LocalProvider, redis: str, threads: Threads) -> list[str]:
    """Has the sandbox host remove those of threads that are gone. Returns their ids. Raises SandboxUnavailable."""
    unused = await provider.unused(redis, UNUSED_SECONDS)
    known = await threads(unused)
    gone = [thread_id for thread_id in unused if thread_id not in known]
    removed = [thread_id for thread_id in gone if await provider.remove(thread_id, redis, UNUSED_SECONDS)]
    if removed:
        log.info("the workspaces of %s threads that are gone were removed: %s", len(removed), ", ".join(removed))
    return removed


def _old(machine: Found) -> bool:
    return time.time() - machine.created_at > YOUNG_SECONDS


def _wanted(machines: Sequence[Found], ref: JSON | None) -> str:
    ids = [machine.machine_id for machine in by_age(machines)]
    return str(ref["id"]) if ref and ref.get("id") in ids else ids[0]


async def _remove(cloud: Cloud, machine: Found) -> list[str]:
    try:
        await cloud.remove(machine.machine_id)
    except MachineError as error:  # the others must go all the same
        log.warning("sandbox %s of thread %s could not be removed: %s", machine.machine_id, machine.thread_id, error)
        return []
    log.warning("sandbox %s of thread %s was an orphan and is removed", machine.machine_id, machine.thread_id)
    return [machine.machine_id]
