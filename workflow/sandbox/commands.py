"""The commands of one sandbox, by key: begun once, found again by whoever asks with the same key, ended on request."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable

from pydantic import BaseModel, Field, ValidationError

from shared.config import SandboxSettings
from workflow.sandbox.base import (
    WORKSPACE,
    Command,
    FileMissing,
    SandboxError,
    SandboxFenced,
    SandboxLost,
    SandboxRefused,
    Task,
)
from workflow.sandbox.bounds import check_command
from workflow.sandbox.inside import Inside, raise_refusal
from workflow.sandbox.link import LinkClosed
from workflow.sandbox.logbook import Logbook, run_of
from workflow.sandbox.record import Record

log = logging.getLogger("trunkline.sandbox")

MAX_RUNNING = 64
MAX_RECORDS = 500
CANCEL_GRACE = 2.0  # seconds from SIGTERM to SIGKILL
KILL_GRACE = 3.0
TERMINATED, KILLED = 143, 137  # exit codes


class _Exit(BaseModel):
    """What sandboxd tells of a command's end."""

    code: int = Field(ge=0, le=255)
    cwd: str | None = Field(max_length=4096)


class Commands:
    """All methods belong to the host's event loop. `inside` starts the sandbox when it does not run."""

    def __init__(
        self,
        settings: SandboxSettings,
        logbook: Logbook,
        inside: Callable[[], Awaitable[Inside]],
        on_output: Callable[[int], None],
    ) -> None:
        self.settings = settings
        self._logbook = logbook
        self._inside = inside
        self._on_output = on_output
        self._records: dict[str, Record] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._cwd = WORKSPACE
        self.kept_bytes = 0
        """Of output."""
        self.end_reason: str | None = None
        """Why the sandbox is being stopped, for the commands that end with it."""

    @property
    def running(self) -> list[Record]:
        return [record for record in self._records.values() if not record.ended]

    @property
    def begun(self) -> list[Record]:
        """Those of the running ones that have processes."""
        return [record for record in self.running if record.terminate]

    def fence(self, key: str, epoch: int) -> None:
        """Remembers a run's newest epoch. Raises SandboxFenced when this one is older."""
        run = run_of(key)
        newest = self._logbook.epochs.get(run, epoch)
        if epoch < newest:
            raise SandboxFenced(f"run {run} is at attempt {newest}; attempt {epoch} may no longer use its sandbox")
        self._logbook.epochs[run] = epoch

    def exec(self, command: Command) -> Record:
        """Raises SandboxFenced, SandboxRefused; SandboxLost when it began and nobody knows what became of it."""
        self.fence(command.key, command.epoch)
        if known := self._records.get(command.key):
            return known
        if command.key in self._logbook.begun:
            raise _lost(command.key)
        self._check(command)
        self._logbook.begin(command.key, command.epoch)
        record = self._records[command.key] = Record(command, command.cwd or self._cwd)
        if command.background:
            self._to_background(record)
        self._spawn(self._run(record, command))
        return record

    def find(self, key: str, epoch: int) -> Record | None:
        """None: it never began. Raises SandboxFenced, SandboxLost."""
        self.fence(key, epoch)
        if key not in self._records and self._logbook.cannot_tell(key):
            raise _lost(key)
        return self._records.get(key)

    def output_of(self, key: str) -> Record:
        if key not in self._records:
            raise SandboxRefused(f"no command has the key {key}")
        return self._records[key]

    def tasks(self) -> list[Task]:
        return [record.task() for record in self._records.values() if record.task_id]

    def task(self, task_id: str) -> Record:
        """Raises SandboxRefused, SandboxLost."""
        known = [record for record in self._records.values() if record.task_id]
        for record in known:
            if record.task_id == task_id:
                return record
        if task_id in self._logbook.tasks:
            raise SandboxLost(f"{task_id} ended when the sandbox host restarted; its output is lost")
        names = ", ".join(str(record.task_id) for record in known) or "none"
        raise SandboxRefused(f"there is no background task {task_id}; known tasks: {names}")

    async def kill_task(self, task_id: str, key: str, epoch: int) -> Task:
        self.fence(key, epoch)
        record = self.task(task_id)
        await self.end(record, KILL_GRACE, "request")
        return record.task()

    async def cancel(self, run_id: str, epoch: int) -> None:
        """Returns when the processes of the run's foreground commands are gone."""
        self.fence(run_id, epoch)
        foreground = [record for record in self.running if record.foreground and run_of(record.key) == run_id]
        await asyncio.gather(*(self.end(record, CANCEL_GRACE, "cancellation") for record in foreground))

    async def end_all(self, reason: str) -> None:
        await asyncio.gather(*(self.end(record, 0, reason) for record in self.running))

    async def end(self, record: Record, grace: float, reason: str) -> None:
        """Does nothing to a command that has ended."""
        if record.ended:
            return
        record.ending = record.ending or reason
        if record.terminate is None:
            record.ended_with(TERMINATED, reason)  # before it was a process: now it becomes none
            return
        with contextlib.suppress(LinkClosed, SandboxError):  # it has ended with its sandbox
            await record.terminate(grace)
        await record.wait()

    # --- one command's life

    def _check(self, command: Command) -> None:
        check_command(command)
        if len(self.running) >= MAX_RUNNING:
            raise SandboxRefused(f"{MAX_RUNNING} commands are running: end some background tasks first")

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    def _to_background(self, record: Record) -> None:
        if record.foreground:
            task_id = f"bg_{len(self._logbook.tasks) + 1}"
            self._logbook.task(task_id)
            record.moved_to_background(task_id)

    async def _run(self, record: Record, command: Command) -> None:
        try:
            inside = await self._inside()
            if not record.ended:
                await self._carry_out(inside, record, command)
        except SandboxError as error:
            self._failed(record, error)
        except Exception:  # whoever waits for it waits for its end, and would for ever
            log.exception("command %s", record.key)
            self._failed(record, SandboxLost(f"the sandbox host failed at {record.key}; its log has the reason"))
        finally:
            self._forget_oldest()

    async def _carry_out(self, inside: Inside, record: Record, command: Command) -> None:
        """Raises SandboxError."""
        timers = [] if command.background else self._timers(record, command)
        kills = inside.memory_kills()
        try:
            end = await self._perform(inside, record, command)
            record.cwd = end.cwd or record.cwd
            if command.cwd is None and not command.background:
                self._cwd = record.cwd
            record.ended_with(end.code, record.ending or self._limit_met(end.code, inside.memory_kills() > kills))
        except LinkClosed:
            limit = self._limit_met(KILLED, inside.memory_kills() > kills)
            record.ended_with(KILLED, record.ending or self.end_reason or limit or "the end of the sandbox")
        finally:
            for timer in timers:
                timer.cancel()

    def _failed(self, record: Record, error: SandboxError) -> None:
        if record.ended:
            return
        self._drop(record)
        if not isinstance(error, SandboxLost):
            self._logbook.forget(record.key)
        record.failed(error)

    def _timers(self, record: Record, command: Command) -> list[asyncio.TimerHandle]:
        longest = self.settings.max_command_seconds
        loop = asyncio.get_running_loop()
        return [
            loop.call_later(command.timeout_seconds, self._to_background, record),
            loop.call_later(longest, lambda: self._spawn(self.end(record, KILL_GRACE, f"time limit {longest:g} s"))),
        ]

    async def _perform(self, inside: Inside, record: Record, command: Command) -> _Exit:
        """Raises LinkClosed, SandboxError."""
        if record.ending:
            return _Exit(code=TERMINATED, cwd=None)
        message = {"op": "run", "command": command.command, "cwd": record.cwd, "env": dict(command.env)}
        request, answer = inside.link.start(message, lambda data: self._wrote(record, data))
        record.began_as(lambda grace: inside.end(request, grace))
        reply = await answer
        try:
            raise_refusal(reply)
            return _Exit.model_validate(reply)
        except FileMissing:
            if command.cwd is not None or record.cwd == WORKSPACE:
                raise
            record.cwd = WORKSPACE  # where the last command ended is no more
            return await self._perform(inside, record, command)
        except ValidationError as error:
            raise SandboxLost("the sandbox gave an answer that makes no sense: how it ended is not known") from error

    def _wrote(self, record: Record, data: bytes) -> None:
        before = record.spool.kept
        record.wrote(data)
        self.kept_bytes += record.spool.kept - before
        self._on_output(len(data))

    def trim(self, max_bytes: int) -> int:
        """Keeps at most so much output: the oldest of those that have ended goes first. Returns what it gave up."""
        before = self.kept_bytes
        for record in sorted(self._records.values(), key=lambda record: not record.ended):
            if self.kept_bytes <= max_bytes:
                break
            self.kept_bytes -= record.spool.kept
            record.spool.discard()
        return before - self.kept_bytes

    def _forget_oldest(self) -> None:
        ended = [record for record in self._records.values() if record.ended]
        for record in ended[: max(0, len(self._records) - MAX_RECORDS)]:
            self._drop(record)

    def _drop(self, record: Record) -> None:
        self.kept_bytes -= record.spool.kept
        del self._records[record.key]

    def _limit_met(self, exit_code: int, out_of_memory: bool) -> str | None:
        """Which limit a command that failed has most likely met."""
        if exit_code == 128 + signal.SIGXFSZ:
            return f"file size limit {readable(self.settings.file_bytes)}"
        if exit_code == 128 + signal.SIGXCPU:
            return f"processor time limit {self.settings.cpu_seconds} s"
        return f"sandbox memory limit {readable(self.settings.memory_bytes)}" if exit_code and out_of_memory else None


def readable(size: float) -> str:
    """1073741824 -> 1 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"


def _lost(key: str) -> SandboxLost:
    return SandboxLost(f"{key} began earlier: whether it ended, and how, is not known any more")
