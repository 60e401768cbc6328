"""A thread's sandbox on a remote machine: the whole protocol, over one helper program in it (helper.py).

What was asked and not answered is asked again: every operation with an effect is keyed, and a command is followed by
bounded reads from an offset, so that a lost connection loses nothing.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from shared.types import JSON
from workflow.sandbox import wire
from workflow.sandbox.base import (
    WORKSPACE,
    Capabilities,
    Command,
    Endpoint,
    ExecResult,
    ExecStatus,
    FileData,
    FileInfo,
    FileWrite,
    Listing,
    NotListening,
    OnOutput,
    Packed,
    SandboxLost,
    SandboxRefused,
    SandboxUnavailable,
    Task,
    TaskOutput,
    WriteResult,
)
from workflow.sandbox.bounds import (
    MAX_DEPTH,
    MAX_ENTRIES,
    bytes_to_read,
    check_command,
    check_read,
    check_write,
)
from workflow.sandbox.framed import answer_of, data_of, frames_of, pass_in
from workflow.sandbox.helper import NONSENSE
from workflow.sandbox.line import Line
from workflow.sandbox.machine import MachineGone
from workflow.sandbox.parts import Parts, parts
from workflow.sandbox.ways import Way

STREAM = "output"
WAIT_SECONDS = 15.0  # of one request that waits for news
CANCEL_SECONDS = 30.0
ATTACHED_CHARS = 30_000  # of the result of a command that an earlier attempt began

T = TypeVar("T")


class RemoteSandbox:
    """See workflow.sandbox.base.Sandbox. A machine that has ended is replaced by the next call."""

    def __init__(self, line: Line, capabilities: Capabilities, longest_seconds: float) -> None:
        """`longest_seconds`: of a command, even after its timeout has moved it to the background."""
        self._line = line
        self._longest = longest_seconds
        self.capabilities = capabilities

    @property
    def ref(self) -> JSON:
        return self._line.ref

    @property
    def notice(self) -> str | None:
        return self._line.notice

    @notice.setter
    def notice(self, text: str | None) -> None:
        self._line.notice = text

    @property
    def blank(self) -> bool:
        """See base.Packable."""
        return self._line.blank

    async def keep_alive(self) -> None:
        """Raises MachineError, SandboxUnavailable."""
        await self._line.extend()

    # --- commands

    async def exec(self, command: Command, on_output: OnOutput) -> ExecResult:
        check_command(command)
        first = {
            **{"key": command.key, "epoch": command.epoch, "command": command.command, "cwd": command.cwd},
            **{"env": dict(command.env), "background": command.background, "timeout": command.timeout_seconds},
            **{"longest": self._longest, "offset": 0, "wait": WAIT_SECONDS, "output_chars": command.output_chars},
        }
        step, _ = await self._line.ask(_Step, "exec", first, once=True)
        result = await self._follow(step, command.key, command.epoch, command.output_chars, on_output)
        if result is None:
            raise SandboxLost(f"{command.key} has begun, and nobody knows it any more")
        return result

    async def attach(self, key: str, epoch: int, on_output: OnOutput) -> ExecResult | None:
        return await self._follow(_Step(), key, epoch, ATTACHED_CHARS, on_output)

    async def _follow(
        self, step: "_Step", key: str, epoch: int, output_chars: int, on_output: OnOutput
    ) -> ExecResult | None:
        while True:
            if step.text:
                await on_output(STREAM, step.text)
            if step.result or step.unknown:
                return step.result
            more = {"key": key, "epoch": epoch, "offset": step.next_offset, "output_chars": output_chars}
            step = await self._ask(_Step, "attach", {**more, "wait": WAIT_SECONDS})

    async def save_output(self, output_of: str, path: str, key: str, epoch: int) -> None:
        await self._ask(dict, "save_output", {"output_of": output_of, "path": path, "key": key, "epoch": epoch})

    async def task_output(self, task_id: str, offset: int = 0, block_seconds: float = 0) -> TaskOutput:
        deadline = time.monotonic() + block_seconds
        while True:
            wait = max(0.0, min(WAIT_SECONDS, deadline - time.monotonic()))
            output = await self._ask(TaskOutput, "task_output", {"task_id": task_id, "offset": offset, "wait": wait})
            if output.task.status is not ExecStatus.RUNNING or time.monotonic() >= deadline:
                return output

    async def kill_task(self, task_id: str, key: str, epoch: int) -> Task:
        return (await self._ask(_OneTask, "kill_task", {"task_id": task_id, "key": key, "epoch": epoch})).task

    async def tasks(self) -> list[Task]:
        return (await self._ask(_Tasks, "tasks", {})).tasks

    async def expose(self, port: int, seconds: int) -> Endpoint | None:
        return await self._line.expose(port, seconds)

    async def cancel(self, run_id: str, epoch: int) -> None:
        deadline = time.monotonic() + CANCEL_SECONDS
        while self._line.there:
            request = {"run_id": run_id, "epoch": epoch}
            try:
                answer, _ = await self._line.ask(_Pending, "cancel", request, replace=False)
            except MachineGone:
                return
            if not answer.pending:
                return
            if time.monotonic() > deadline:
                raise SandboxUnavailable(f"{answer.pending} commands of run {run_id} have not ended yet: ask again.")

    # --- files

    async def read(self, path: str, offset: int = 0, limit: int | None = None) -> FileData:
        request = {"path": path, "offset": offset, "limit": bytes_to_read(limit)}
        head, content = await self._line.ask(_Read, "read", request)
        check_read(path, head.info.size, offset, limit)
        return FileData(head.info, content, head.sha256)

    async def stat(self, path: str) -> FileInfo:
        return (await self._ask(wire.StatAnswer, "stat", {"path": path})).info

    async def hashes(self, paths: Sequence[str]) -> dict[str, str | None]:
        answer = await self._ask(wire.HashesAnswer, "hashes", {"paths": list(paths)})
        if len(answer.hashes) != len(paths):
            raise SandboxRefused(NONSENSE)
        return dict(zip(paths, answer.hashes, strict=True))

    async def list(self, path: str, depth: int = 1, ignore: Sequence[str] = (), limit: int = 500) -> Listing:
        bounds = {"depth": min(depth, MAX_DEPTH), "limit": min(limit, MAX_ENTRIES)}
        return await self._ask(Listing, "list", {"path": path, "ignore": list(ignore), **bounds})

    async def write(self, files: Sequence[FileWrite], key: str, epoch: int, note: bytes) -> WriteResult:
        check_write(files, note)
        plan = [wire.PlannedFile(file.path, len(file.content), file.executable, file.expect) for file in files]
        data = b"".join((*(file.content for file in files), note))
        request = {"key": key, "epoch": epoch, "files": [asdict(file) for file in plan]}
        written, _ = await self._line.ask(wire.Written, "write", request, data, once=True)
        return WriteResult(written.note, written.repeated)

    async def recall(self, key: str, epoch: int) -> bytes | None:
        return (await self._ask(wire.Note, "recall", {"key": key, "epoch": epoch})).note

    def transfer(self, request: Mapping[str, Any]) -> AbstractAsyncContextManager[Parts]:
        """The line to the program that moves files. Raises SandboxError."""
        return parts(self._line, request)

    @asynccontextmanager
    async def packed(self, exclude: Sequence[str], known: str, max_bytes: int) -> AsyncIterator[Packed]:
        asked = wire.Outgoing("pack", WORKSPACE, exclude=exclude, known=known, max_bytes=max_bytes)
        async with self.transfer(asdict(asked)) as moving:
            frames = frames_of(moving)
            head = await answer_of(frames, wire.OutgoingHead)
            yield Packed(head.fingerprint or "", None if head.unchanged else data_of(frames))

    async def fill(self, pieces: AsyncIterator[bytes]) -> None:
        async with self.transfer(asdict(wire.Incoming("fill", WORKSPACE))) as moving:
            await pass_in(moving, pieces)
            await answer_of(frames_of(moving), dict)
        await self._ask(dict, "settle", {})
        self._line.blank = False

    # --- ports

    async def way(self, port: int) -> Way:
        """How a port is reached. Raises NotListening, SandboxError; MachineGone where there is no machine any more."""
        told, _ = await self._line.ask(wire.PortsAnswer, "ports", {}, replace=False)
        if port not in told.ports:
            raise NotListening(port, told.ports)
        return await self._line.way(port)

    async def _ask(self, kind: type[T], op: str, request: Mapping[str, Any]) -> T:
        return (await self._line.ask(kind, op, request))[0]


@dataclass(frozen=True, slots=True)
class _Step:
    """Of following a command: `next_offset` is where the output goes on after `text`."""

    text: str = ""
    next_offset: int = 0
    result: ExecResult | None = None
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class _Read:
    info: FileInfo
    sha256: str | None


@dataclass(frozen=True, slots=True)
class _OneTask:
    task: Task


@dataclass(frozen=True, slots=True)
class _Tasks:
    tasks: list[Task]


@dataclass(frozen=True, slots=True)
class _Pending:
    pending: int
