"""All sandboxes of one host, by thread."""

import asyncio
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

# Beside the workspaces; no thread id looks like them.
NOTES_FOLDER = ".host"
PROBE_FOLDER = ".probe"
IDLE_CHECK_SECONDS = 5.0


class Sandboxes:
    """`problem`: why this machine can have none (cause and cure); None where it can, and then there is a ground."""

    def __init__(self, settings: SandboxSettings, workspaces: Path, ground: Ground | None, problem: str | None) -> None:
        self._settings = settings
        self._workspaces = workspaces
        self._ground = ground
        self._all: dict[str, HostedSandbox] = {}
        self._work: list[asyncio.Task[None]] = []
        self.problem = problem
        self.incarnation = secrets.token_hex(8)

    def running(self) -> Collection[HostedSandbox]:
        return [sandbox for sandbox in self._all.values() if sandbox.inside]

    def get(self, thread_id: str) -> HostedSandbox:
        """Raises SandboxUnavailable, SandboxRefused."""
        if self.problem or self._ground is None:
            raise SandboxUnavailable(self.problem or "Sandboxes are unavailable.")
        if thread_id not in self._all:
            if not THREAD_ID.fullmatch(thread_id):
                raise SandboxRefused(f"{thread_id!r} is not a thread id")
            notes = self._workspaces / NOTES_FOLDER
            notes.mkdir(mode=0o700, exist_ok=True)
            self._all[thread_id] = HostedSandbox(thread_id, self._ground, self._workspaces, notes)
        return self._all[thread_id]

    def acquire(self, thread_id: str, ref: JSON | None) -> Acquired:
        """The sandbox's ref as it is now, and what has happened since `ref`."""
        sandbox = self.get(thread_id)
        now = {"provider": "local", "host": self.incarnation, "life": sandbox.life}
        if ref is None or all(ref.get(name) == value for name, value in now.items()):
            return Acquired(now, None)
        kept = "Its files are as they were." if sandbox.had_files else "Its files are lost too: the workspace is empty."
        return Acquired(now, f"The sandbox was restarted since you last used it: background tasks have ended. {kept}")

    def start(self) -> None:
        """Begins to look after the sandboxes."""
        by_watchdog = self._ground is not None and self._ground.groups is None
        watchdog = Watchdog(self._settings, self.running, watch_memory=by_watchdog)
        self._work = [asyncio.create_task(watchdog.run()), asyncio.create_task(self._rest_idle())]

    async def close(self) -> None:
        """Ends every process of every sandbox."""
        self.problem = "the sandbox host is shutting down"
        for task in self._work:
            task.cancel()
        await asyncio.gather(*(sandbox.close() for sandbox in self._all.values()))

    async def _rest_idle(self) -> None:
        limit = self._settings.idle_seconds
        while True:
            await asyncio.sleep(min(limit / 4, IDLE_CHECK_SECONDS))
            idle = [sandbox for sandbox in self.running() if sandbox.idle_seconds() > limit]
            await asyncio.gather(*(sandbox.stop(f"the sandbox was idle for {limit:g} s") for sandbox in idle))
