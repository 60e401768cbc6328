"""One command as the host knows it: it lives on when the one who asked for it has gone."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from workflow.sandbox.base import Command, ExecResult, ExecStatus, SandboxError, Task
from workflow.sandbox.sandboxd_text import whole_characters
from workflow.sandbox.spool import Spool

FOLLOW_BYTES = 256 * 1024
ALIVE_SECONDS = 10
TEXT_CHARS = 1000  # of a command, kept for the list of tasks


class Record:
    """`task_id` is set once it goes on in the background. All methods belong to the host's event loop."""

    def __init__(self, command: Command, cwd: str) -> None:
        self.key = command.key
        self.text = command.command[:TEXT_CHARS]
        self.cwd = cwd
        self.spool = Spool()
        self.status = ExecStatus.RUNNING
        self.exit_code: int | None = None
        self.task_id: str | None = None
        self.killed_by: str | None = None
        self.terminate: Callable[[float], Awaitable[object]] | None = None
        self.ending: str | None = None  # why somebody wants it to end
        self.failure: SandboxError | None = None
        self._began = time.monotonic()
        self._duration: float | None = None
        self._changed = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self._duration is not None

    @property
    def foreground(self) -> bool:
        return not self.ended and self.task_id is None

    def began_as(self, terminate: Callable[[float], Awaitable[object]]) -> None:
        """It is a process now, which `terminate(grace)` ends."""
        self.terminate = terminate
        self._notify()

    def wrote(self, data: bytes) -> None:
        self.spool.append(data)
        self._notify()

    def moved_to_background(self, task_id: str) -> None:
        self.task_id = task_id
        self._notify()

    def ended_with(self, exit_code: int, killed_by: str | None) -> None:
        self._duration = time.monotonic() - self._began
        self.exit_code = exit_code
        self.killed_by = killed_by
        self.status = ExecStatus.KILLED if killed_by else ExecStatus.EXITED
        self._notify()

    def failed(self, error: SandboxError) -> None:
        """It never became a process."""
        self.failure = error
        self.ended_with(126, None)

    async def started(self) -> None:
        """Until it is a process, or has failed to become one."""
        while self.terminate is None and not self.ended:
            await self._changed.wait()

    async def wait(self, seconds: float | None = None) -> None:
        """Until it has ended, or the time is over."""
        try:
            async with asyncio.timeout(seconds):
                while not self.ended:
                    await self._changed.wait()
        except TimeoutError:
            pass

    async def follow(self, offset: int = 0) -> AsyncIterator[tuple[str, int]]:
        """Its output from `offset` on, as far as it is kept, while it runs in the foreground; with where it goes on.

        An empty text tells that it still runs.
        """
        while True:
            changed, over = self._changed, not self.foreground
            data, start = self.spool.read(offset, FOLLOW_BYTES)
            if not (over and start + len(data) == self.spool.total):
                data = data[: whole_characters(data)]
            gap = f"\n[{start - offset} bytes left out]\n" if start > offset else ""
            offset = start + len(data)
            if data:
                yield gap + data.decode(errors="replace"), offset
            elif over:
                return
            elif not await _wait(changed, ALIVE_SECONDS):
                yield "", offset

    def result(self, output_chars: int) -> ExecResult:
        return ExecResult(
            status=self.status,
            exit_code=self.exit_code,
            output=self.spool.output(output_chars),
            dropped_bytes=self.spool.dropped,
            task_id=self.task_id,
            cwd=self.cwd,
            duration_ms=self._milliseconds(),
            killed_by=self.killed_by,
        )

    def task(self) -> Task:
        return Task(
            task_id=self.task_id or "",
            key=self.key,
            command=self.text,
            status=self.status,
            exit_code=self.exit_code,
            duration_ms=self._milliseconds(),
            killed_by=self.killed_by,
        )

    def _milliseconds(self) -> int:
        seconds = time.monotonic() - self._began if self._duration is None else self._duration
        return round(seconds * 1000)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Whether it was set in time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
