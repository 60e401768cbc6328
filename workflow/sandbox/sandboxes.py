"""All sandboxes of one host, by thread: who runs, who rests, and what they may take of the host together."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from shared.config import SandboxSettings
from shared.ids import THREAD_ID
from shared.types import JSON
from workflow.sandbox.base import SandboxRefused, SandboxUnavailable
from workflow.sandbox.egress import network_of
from workflow.sandbox.hosted import NOTES_FOLDER, HostedSandbox
from workflow.sandbox.inside import Ground, Inside, start
from workflow.sandbox.leftovers import Leftovers
from workflow.sandbox.watchdog import Watchdog
from workflow.sandbox.wire import Acquired

log = logging.getLogger("trunkline.sandbox")

PROBE_FOLDER = ".probe"  # beside the workspaces; no thread id looks like it
IDLE_CHECK_SECONDS = 5.0
FORGET_SECONDS = 24 * 3600  # of rest, after which only what is on disk tells of a sandbox
REMEMBERED = 1000  # sandboxes at rest; the one that was used last is forgotten last
PLACE_SECONDS = 30.0  # that a caller waits for a place; for an answer it waits twice as long
LOOK_SECONDS = 0.1  # between two looks for a free place: too many things free one to be told of each
TASK_GRACE = 60.0  # seconds without use after which a place is worth more than the background tasks in it
CHECK_EVERY = 4 * 1024**2  # bytes of output between two looks at what is kept of it


class Sandboxes:
    """`problem`: why there are none, with the cure; None once `open` has been given a ground."""

    def __init__(self, settings: SandboxSettings, workspaces: Path, problem: str | None = None) -> None:
        self._settings = settings
        self._network = network_of(settings)
        self._workspaces = workspaces
        self._leftovers = Leftovers(workspaces, workspaces / NOTES_FOLDER)
        self._all: dict[str, HostedSandbox] = {}
        self._work: list[asyncio.Task[None]] = []
        self._turn = asyncio.Lock()
        self._starting = 0
        self._new_output = 0
        self.ground: Ground | None = None
        self.problem = problem
        self.incarnation = secrets.token_hex(8)

    def open(self, ground: Ground) -> None:
        """From now on there are sandboxes, and somebody looks after them."""
        self.ground, self.problem = ground, None
        watchdog = Watchdog(self.running, ground.groups)
        self._work = [asyncio.create_task(watchdog.run()), asyncio.create_task(self._look_after_idle())]

    def running(self) -> Collection[HostedSandbox]:
        return [sandbox for sandbox in self._all.values() if sandbox.inside]

    def get(self, thread_id: str) -> HostedSandbox:
        """Raises SandboxUnavailable, SandboxRefused."""
        ground = self._ground()
        if thread_id not in self._all:
            if not THREAD_ID.fullmatch(thread_id):
                raise SandboxRefused(f"{thread_id!r} is not a thread id")
            self._all[thread_id] = HostedSandbox(thread_id, ground, self._workspaces, self._start, self._note_output)
        return self._all[thread_id]

    def exists(self, thread_id: str) -> bool:
        """Whether it was ever made. Raises SandboxUnavailable."""
        self._ground()
        known = THREAD_ID.fullmatch(thread_id) is not None
        return known and (thread_id in self._all or (self._workspaces / thread_id).exists())

    def acquire(self, thread_id: str, ref: JSON | None, redis: str) -> Acquired:
        """The sandbox's ref as it is now, and what has happened since `ref`. `redis` knows the thread."""
        sandbox = self.get(thread_id)
        self._leftovers.claim(thread_id, redis)
        now = {"provider": "local", "host": self.incarnation, "life": sandbox.life}
        if ref is None or all(ref.get(name) == value for name, value in now.items()):
            return self._acquired(sandbox, now, None)
        there = sandbox.had_files or ref.get("host") == self.incarnation
        kept = "Its files are as they were." if there else "Its files are lost too: the workspace is empty."
        notice = f"The sandbox was restarted since you last used it: background tasks have ended. {kept}"
        return self._acquired(sandbox, now, notice)

    def _acquired(self, sandbox: HostedSandbox, ref: JSON, notice: str | None) -> Acquired:
        return Acquired(ref, notice, self._network, self._settings.processes, sandbox.blank)

    def unused(self, redis: str, seconds: float) -> list[str]:
        """Raises SandboxUnavailable."""
        self._ground()
        return [each for each in self._leftovers.unused(redis, seconds) if self._rested(each)]

    async def remove(self, thread_id: str, redis: str, seconds: float) -> bool:
        """Whether its files are gone: not if it is in use, or that Redis's no more. Raises SandboxUnavailable."""
        self._ground()
        if not self._rested(thread_id) or not self._leftovers.is_unused(thread_id, redis, seconds):
            return False
        self._all.pop(thread_id, None)
        await self._leftovers.remove(thread_id)
        return True

    def _rested(self, thread_id: str) -> bool:
        sandbox = self._all.get(thread_id)
        return sandbox is None or not (sandbox.inside or sandbox.commands.running or sandbox.idle_seconds() == 0)

    async def close(self) -> None:
        """Ends every process of every sandbox."""
        self.problem = problem = "the sandbox host is shutting down"
        for task in self._work:
            task.cancel()
        await asyncio.gather(*(sandbox.stop(problem) for sandbox in self._all.values()))

    def _ground(self) -> Ground:
        if self.problem or self.ground is None:
            raise SandboxUnavailable(self.problem or "Sandboxes are unavailable: the sandbox host is starting.")
        return self.ground

    # --- places to run in

    async def _start(self, sandbox: HostedSandbox) -> Inside:
        async with self._place():
            self._ground()  # it may be gone by now
            return await start(sandbox.ground, sandbox.workspace, sandbox.thread_id, lambda: sandbox.network)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """To start in; who asks first gets the first. Raises SandboxUnavailable."""
        try:
            async with asyncio.timeout(PLACE_SECONDS), self._turn:
                while len(self.running()) + self._starting >= self._settings.max_running:
                    await self._free_a_place()
                self._starting += 1
        except TimeoutError as error:
            raise SandboxUnavailable(
                f"All {self._settings.max_running} sandboxes that the host runs at once are in use, and none came free "
                f"in {PLACE_SECONDS:g} s. Raise sandbox.max_running, or let fewer runs use sandboxes at the same time."
            ) from error
        try:
            yield
        finally:
            self._starting -= 1

    async def _free_a_place(self) -> None:
        """Puts the one to rest that is idle the longest, if any is. Raises SandboxUnavailable."""
        self._ground()
        idle = [each for each in self.running() if each.idle_seconds() > (TASK_GRACE if each.commands.running else 0)]
        if idle:
            longest = min(idle, key=lambda each: (bool(each.commands.running), -each.idle_seconds()))
            await longest.stop(f"its place was needed: sandbox.max_running is {self._settings.max_running}")
        else:
            await asyncio.sleep(LOOK_SECONDS)

    async def _look_after_idle(self) -> None:
        while True:
            await asyncio.sleep(min(self._settings.idle_seconds / 4, IDLE_CHECK_SECONDS))
            for sandbox in self.running():
                try:
                    await self._rest(sandbox)
                except Exception:  # the others must come to rest all the same
                    log.exception("sandbox %s could not be put to rest", sandbox.thread_id)
            self._forget()

    async def _rest(self, sandbox: HostedSandbox) -> None:
        limit = self._settings.idle_seconds
        if sandbox.idle_seconds() > limit:
            await sandbox.stop(f"the sandbox was idle for {limit:g} s")

    def _forget(self) -> None:
        """Of those at rest, the ones that nobody has used for long. What is on disk still tells what they did."""
        resting = [each for each in self._all.values() if not (each.inside or each.commands.running)]
        idle = sorted((each for each in resting if each.idle_seconds() > 0), key=HostedSandbox.idle_seconds)
        limit = self._settings.idle_seconds + FORGET_SECONDS
        for number, sandbox in enumerate(idle):
            if number >= REMEMBERED or sandbox.idle_seconds() > limit:
                del self._all[sandbox.thread_id]

    # --- memory for output

    def _note_output(self, size: int) -> None:
        self._new_output += size
        if self._new_output > CHECK_EVERY:
            self._new_output = 0
            self._make_room()

    def _make_room(self) -> None:
        """Those at rest give up output first, then those that keep the most: a flood drowns itself, not the others."""
        excess = sum(each.commands.kept_bytes for each in self._all.values()) - self._settings.output_bytes
        for sandbox in sorted(self._all.values(), key=lambda each: (bool(each.inside), -each.commands.kept_bytes)):
            if excess <= 0:
                return
            excess -= sandbox.commands.trim(sandbox.commands.kept_bytes - excess)
