"""Enforces what the kernel does not: a sandbox's disk, and where there are no control groups (tier C) its memory and
its share of the processors.

It looks twice a second, so a process can be over the limit for a moment. Memory that nobody has mapped cannot be seen
from here, which is why the sandboxes of tier C can make none (seccomp.UNCOUNTED); what is left unseen there are the
buffers of pipes and sockets.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Collection, Sequence

from workflow.sandbox.cgroups import Groups
from workflow.sandbox.commands import readable
from workflow.sandbox.fairness import even_out
from workflow.sandbox.hosted import HostedSandbox
from workflow.sandbox.inside import Inside
from workflow.sandbox.usage import deleted_bytes, disk_usage, memory_bytes, resident_bytes, tmpfs_bytes

log = logging.getLogger("trunkline.sandbox")

INTERVAL = 0.5  # seconds
CLOSE_INTERVAL = 0.1  # once a sandbox has used half of its memory
DISK_INTERVAL = 5.0
DISK_PATIENCE = 10  # the next look at a disk comes no sooner than this many times the length of the last one
SUDDEN_BYTES = 64 * 1024**2  # a file system that has lost this much is looked at now
GROWTH_BYTES = 1024**2
BYTES_PER_FILE = 4096  # a sandbox may have as many files as blocks of this size fit on its disk


class Watchdog:
    """`sandboxes` gives those whose processes run. `groups`: what the kernel enforces for them."""

    def __init__(self, sandboxes: Callable[[], Collection[HostedSandbox]], groups: Groups | None) -> None:
        self._sandboxes = sandboxes
        self._watch_memory = groups is None
        self._watch_processors = groups is None or not groups.share_processors
        self._disks: dict[str, DiskWatch] = {}

    async def run(self) -> None:
        while True:
            running = self._sandboxes()
            self._disks = {each.thread_id: self._disk_of(each) for each in running}
            close = [self._look(sandbox) for sandbox in running]
            await asyncio.sleep(CLOSE_INTERVAL if any(close) else INTERVAL)

    def _disk_of(self, sandbox: HostedSandbox) -> "DiskWatch":
        return self._disks.get(sandbox.thread_id) or DiskWatch(sandbox)

    def _look(self, sandbox: HostedSandbox) -> bool:
        """Whether it needs a closer look soon."""
        try:
            self._disks[sandbox.thread_id].look()
            return sandbox.inside is not None and self._look_inside(sandbox, sandbox.inside)
        except Exception:  # the watch over the others must go on
            log.exception("sandbox %s could not be looked at", sandbox.thread_id)
            return False

    def _look_inside(self, sandbox: HostedSandbox, inside: Inside) -> bool:
        if not (self._watch_memory or self._watch_processors):
            return False
        pids = inside.pids()
        own, others = pids[:2], pids[2:]
        uneven = self._watch_processors and even_out(others)
        return (self._watch_memory and self._look_at_memory(sandbox, inside, own, others)) or uneven

    def _look_at_memory(
        self, sandbox: HostedSandbox, inside: Inside, own: Sequence[int], others: Sequence[int]
    ) -> bool:
        if not others:
            return False
        limit = sandbox.ground.settings.memory_bytes
        used = memory_bytes([*own, *others], limit) + tmpfs_bytes(own[-1])
        if used > limit:
            largest = max(others, key=resident_bytes)
            text = "sandbox %s uses %s of memory: its largest process is killed"
            log.warning(text, sandbox.thread_id, readable(used))
            inside.kill_for_memory(largest)
        return used > limit / 2


class DiskWatch:
    """The disk of one sandbox, measured by walking it: not too often, and soon when something fills up fast."""

    def __init__(self, sandbox: HostedSandbox) -> None:
        self._sandbox = sandbox
        self._walk: asyncio.Task[None] | None = None
        self._next = 0.0
        self._free = 0
        self._used = 0

    def look(self) -> None:
        if self._walk and not self._walk.done():
            return
        status = os.statvfs(self._sandbox.workspace)
        sudden = self._free - status.f_bavail * status.f_frsize > SUDDEN_BYTES
        if self._sandbox.commands.running and (sudden or time.monotonic() > self._next):
            self._free = status.f_bavail * status.f_frsize
            self._walk = asyncio.create_task(self._measure())

    async def _measure(self) -> None:
        try:
            await self._enforce()
        except Exception:  # the next look comes all the same
            log.exception("the disk of sandbox %s could not be measured", self._sandbox.thread_id)

    async def _enforce(self) -> None:
        began = time.monotonic()
        used, files = await disk_usage(self._sandbox.disk_usage_command())
        if self._sandbox.inside:
            used += deleted_bytes(self._sandbox.inside.pids(), self._sandbox.workspace.stat().st_dev)
        took = time.monotonic() - began
        self._next = time.monotonic() + max(DISK_INTERVAL, DISK_PATIENCE * took)
        limit = self._sandbox.ground.settings.disk_bytes
        grown, self._used = used > self._used + GROWTH_BYTES, used
        was_full = self._sandbox.disk_is_full
        self._sandbox.disk_is_full = used > limit or files > limit / BYTES_PER_FILE
        if self._sandbox.disk_is_full and (grown or not was_full):
            log.warning("sandbox %s has %s on disk: its commands are ended", self._sandbox.thread_id, readable(used))
            await self._sandbox.commands.end_all(f"sandbox disk limit {readable(limit)}")
