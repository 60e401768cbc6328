"""All sandboxes of one host, by thread."""

import asyncio
import logging
import secrets
from collections.abc import Collection
from pathlib import Path

from shared.config import SandboxSettings
from shared.ids import THREAD_ID
from shared.types import JSON
from workflow.sandbox.base import SandboxRefused, SandboxUnavailable
from workflow.sandbox.hosted import HostedSandbox
from workflow.sandbox.inside import Ground
from workflow.sandbox.watchdog import Watchdog
from workflow.sandbox.wire import Acquired

log = logging.getLogger("trunkline.sandbox")

# Beside the workspaces; no thread id looks like them.
NOTES_FOLDER = ".host"
PROBE_FOLDER = ".probe"
IDLE_CHECK_SECONDS = 5.0
FORGET_SECONDS = 24 * 3600  # of rest, after which only files and journal tell of a sandbox


class Sandboxes:
    """`problem`: why there are none, with the cure; None once `open` has been given a ground."""

    def __init__(self, settings: SandboxSettings, workspaces: Path, problem: str | None = None) -> None:
        self._settings = settings
        self._workspaces = workspaces
        self._all: dict[str, HostedSandbox] = {}
        self._work: list[asyncio.Task[None]] = []
        self.ground: Ground | None = None
        self.problem = problem
        self.incarnation = secrets.token_hex(8)

    def open(self, ground: Ground) -> None:
        """From now on there are sandboxes, and somebody looks after them."""
        self.ground, self.problem = ground, None
        watchdog = Watchdog(self._settings, self.running, watch_memory=ground.groups is None)
        self._work = [asyncio.create_task(watchdog.run()), asyncio.create_task(self._rest_idle())]

    def running(self) -> Collection[HostedSandbox]:
        return [sandbox for sandbox in self._all.values() if sandbox.inside]

    def get(self, thread_id: str) -> HostedSandbox:
        """Raises SandboxUnavailable, SandboxRefused."""
        if self.problem or self.ground is None:
            raise SandboxUnavailable(self.problem or "Sandboxes are unavailable: the sandbox host is starting.")
        if thread_id not in self._all:
            if not THREAD_ID.fullmatch(thread_id):
                raise SandboxRefused(f"{thread_id!r} is not a thread id")
            notes = self._workspaces / NOTES_FOLDER
            notes.mkdir(mode=0o700, exist_ok=True)
            self._all[thread_id] = HostedSandbox(thread_id, self.ground, self._workspaces, notes)
        return self._all[thread_id]

    def acquire(self, thread_id: str, ref: JSON | None) -> Acquired:
        """The sandbox's ref as it is now, and what has happened since `ref`."""
        sandbox = self.get(thread_id)
        now = {"provider": "local", "host": self.incarnation, "life": sandbox.life}
        if ref is None or all(ref.get(name) == value for name, value in now.items()):
            return Acquired(now, None)
        there = sandbox.had_files or ref.get("host") == self.incarnation
        kept = "Its files are as they were." if there else "Its files are lost too: the workspace is empty."
        return Acquired(now, f"The sandbox was restarted since you last used it: background tasks have ended. {kept}")

    async def close(self) -> None:
        """Ends every process of every sandbox."""
        self.problem = "the sandbox host is shutting down"
        for task in self._work:
            task.cancel()
        await asyncio.gather(*(sandbox.stop(self.problem) for sandbox in self._all.values()))

    async def _rest_idle(self) -> None:
        while True:
            await asyncio.sleep(min(self._settings.idle_seconds / 4, IDLE_CHECK_SECONDS))
            for sandbox in list(self._all.values()):
                try:
                    await self._rest(sandbox)
                except Exception:  # the others must come to rest all the same
                    log.exception("sandbox %s could not be put to rest", sandbox.thread_id)

    async def _rest(self, sandbox: HostedSandbox) -> None:
        limit, idle = self._settings.idle_seconds, sandbox.idle_seconds()
        if sandbox.inside and idle > limit:
            await sandbox.stop(f"the sandbox was idle for {limit:g} s")
        if idle > limit + FORGET_SECONDS:
            del self._all[sandbox.thread_id]
