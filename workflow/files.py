"""Threads' files beyond their sandboxes: a snapshot when a run ends, and the last one back where they are gone."""

import asyncio
import logging
import time
import weakref
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from shared.config import SnapshotSettings
from shared.errors import AppError
from shared.snapshots.snapshots import Snapshot, Snapshots
from shared.threads.store import ThreadStore
from shared.threads.types import Thread
from shared.types import JSON
from workflow.sandbox.base import Packable, Sandbox, SandboxProvider, SandboxRefused

log = logging.getLogger("trunkline.sandbox")

AT_ONCE = 4  # snapshots that one worker takes side by side
LEAVING_SECONDS = 10.0  # for those under way when a worker stops
TAKE_SECONDS = 900.0  # of one snapshot
FIRST = ""  # the fingerprint of nothing


class Files:
    """A provider's sandboxes, with this. Of one worker; belongs to one event loop, and does not close the provider."""

    def __init__(
        self, snapshots: Snapshots, store: ThreadStore, sandboxes: SandboxProvider, settings: SnapshotSettings
    ) -> None:
        self._snapshots = snapshots
        self._store = store
        self._sandboxes = sandboxes
        self._settings = settings
        self._room = asyncio.Semaphore(AT_ONCE)
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._acquired: set[str] = set()
        self._work: set[asyncio.Task[None]] = set()

    async def acquire(self, thread_id: str, ref: JSON | None) -> Sandbox:
        """The thread's sandbox, with its files, as far as they are anywhere. Raises SandboxUnavailable."""
        sandbox = await self._sandboxes.acquire(thread_id, ref)
        self._acquired.add(thread_id)
        if self._settings.enabled and isinstance(sandbox, Packable) and sandbox.blank:
            snapshot = await self._snapshots.last(thread_id)
            if snapshot:
                await self._bring_back(sandbox, snapshot, forked=ref is None)
        return sandbox

    def keep(self, thread: Thread, run_id: str) -> None:
        """A run has ended, or waits: its thread's files are kept, beside what goes on. `thread` as the run began."""
        if self._settings.enabled and (thread.sandbox or thread.id in self._acquired):
            self._acquired.discard(thread.id)
            task = asyncio.create_task(self._keep(thread.id, run_id))
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    async def close(self) -> None:
        if self._work:
            _, late = await asyncio.wait(self._work, timeout=LEAVING_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _bring_back(self, sandbox: Packable, snapshot: Snapshot, *, forked: bool) -> None:
        when = datetime.fromtimestamp(snapshot.taken_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        try:
            await sandbox.fill(self._snapshots.content(snapshot))
        except AppError as error:
            log.error("the snapshot of %s could not be brought into a sandbox: %s", snapshot.run_id, error)
            return
        what = "were copied from the thread that this one was forked from" if forked else "were brought back"
        gone = "" if forked else "The machine of your sandbox is gone, and so are its background tasks. "
        left = ", ".join(self._settings.exclude)
        sandbox.notice = (
            f"{gone}The files in the workspace {what}, as they were at {when}: later changes are lost. Left out were "
            f"files and folders named {left}: install again what you need of them."
        )

    async def _keep(self, thread_id: str, run_id: str) -> None:
        turn = self._turns.setdefault(thread_id, asyncio.Lock())
        try:
            async with turn, self._room, asyncio.timeout(TAKE_SECONDS):
                await self._take(thread_id, run_id)
        except (AppError, TimeoutError) as error:
            log.warning("run %s: no snapshot of its files: %s", run_id, error or f"not done in {TAKE_SECONDS:g} s")
        except Exception:  # a task of its own: nobody else would say so
            log.exception("run %s: no snapshot of its files", run_id)

    async def _take(self, thread_id: str, run_id: str) -> None:
        thread = await self._store.thread(thread_id)
        if thread is None or thread.sandbox is None or thread.sandbox_of != thread_id:
            return
        began = time.monotonic()
        sandbox = await self._sandboxes.acquire(thread_id, thread.sandbox)
        if not isinstance(sandbox, Packable) or sandbox.blank:
            return
        last = await self._snapshots.last(thread_id)
        known = last.fingerprint if last else FIRST
        async with sandbox.packed(self._settings.exclude, known, self._settings.max_bytes) as packed:
            if packed.pieces is None:
                return
            pieces = _bounded(packed.pieces, 2 * self._settings.max_bytes)
            snapshot = await self._snapshots.keep(thread_id, run_id, packed.fingerprint, pieces)
        if snapshot:
            log.info("snapshot of run %s: %s bytes in %.2f s", run_id, snapshot.size, time.monotonic() - began)


async def _bounded(pieces: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    """What comes from a sandbox may be more than it said. Raises SandboxRefused."""
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > limit:
            raise SandboxRefused(f"the sandbox sends more than {limit} bytes")
        yield piece
