"""The `local` provider: sandboxes of a sandbox host (host.py), reached over HTTP from any process of the machine."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from shared.config import SandboxSettings, Settings
from shared.types import JSON
from workflow.sandbox import wire
from workflow.sandbox.base import (
    WORKSPACE,
    Capabilities,
    Command,
    ExecResult,
    FileData,
    FileInfo,
    FileWrite,
    Listing,
    OnOutput,
    Packed,
    SandboxError,
    Task,
    TaskOutput,
    WriteResult,
)
from workflow.sandbox.connection import ANSWER_SECONDS, HostConnection
from workflow.sandbox.egress import narrowed
from workflow.sandbox.limits import NO_LIMITS, Limits

STREAM = "output"

T = TypeVar("T")


class LocalProvider:
    """Finds or makes the sandbox of a thread. Belongs to one event loop."""

    def __init__(self, settings: Settings, redis: str = "") -> None:
        """`redis`: the name of the one that knows the threads. Without one, no workspace is ever removed."""
        self._settings = settings.sandbox
        self._connection = HostConnection(settings.sandbox.host_url, settings.sandbox_token_file)
        self._redis = redis

    async def acquire(self, thread_id: str, ref: JSON | None) -> "LocalSandbox":
        """Raises SandboxUnavailable."""
        body = wire.encode(wire.Acquire(ref, self._redis))
        answer = await self._connection.ask(f"/sandboxes/{thread_id}/acquire", body)
        acquired = wire.adapter(wire.Acquired).validate_json(answer)
        return LocalSandbox(self._connection, thread_id, acquired, self._settings)

    async def unused(self, redis: str, seconds: float) -> Sequence[str]:
        """Threads of that Redis whose workspaces the host has, not used for so long. Raises SandboxUnavailable."""
        answer = await self._connection.ask("/unused", wire.encode(wire.Unused(redis, seconds)))
        return wire.adapter(wire.ThreadIds).validate_json(answer).thread_ids

    async def remove(self, thread_id: str, redis: str, seconds: float) -> bool:
        """Its sandbox with all its files, if it is still unused. Raises SandboxUnavailable."""
        body = wire.encode(wire.Unused(redis, seconds))
        answer = await self._connection.ask(f"/sandboxes/{thread_id}/remove", body)
        return bool(wire.adapter(wire.ThreadIds).validate_json(answer).thread_ids)

    async def close(self) -> None:
        await self._connection.close()


class LocalSandbox:
    """See workflow.sandbox.base.Sandbox."""

    def __init__(
        self, connection: HostConnection, thread_id: str, acquired: wire.Acquired, settings: SandboxSettings
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._hosts: Sequence[str] | None = None
        self._limits = NO_LIMITS
        self._path = f"/sandboxes/{thread_id}"
        self.ref = acquired.ref
        self.notice = acquired.notice
        self.capabilities = Capabilities(acquired.network, acquired.processes)
        self.blank = acquired.blank

    def keep_to(self, hosts: Sequence[str]) -> None:
        self.capabilities = replace(self.capabilities, network=narrowed(self._settings, hosts))
        self._hosts = hosts

    def limit(self, limits: Limits) -> None:
        self._limits = limits
        if limits.processes and self.capabilities.processes:
            fewer = min(limits.processes, self.capabilities.processes)
            self.capabilities = replace(self.capabilities, processes=fewer)

    async def exec(self, command: Command, on_output: OnOutput) -> ExecResult:
        def asked(offset: int) -> wire.Exec:
            return wire.Exec(command, offset, self._hosts, self._limits)

        step = await self._follow("exec", asked, on_output)
        assert step.result
        return step.result

    async def attach(self, key: str, epoch: int, on_output: OnOutput) -> ExecResult | None:
        step = await self._follow("attach", lambda offset: wire.Attach(key, epoch, offset), on_output)
        return step.result

    async def save_output(self, output_of: str, path: str, key: str, epoch: int) -> None:
        await self._ask("save_output", wire.SaveOutput(output_of, path, key, epoch))

    async def task_output(self, task_id: str, offset: int = 0, block_seconds: float = 0) -> TaskOutput:
        request = wire.ReadOutput(task_id, offset, block_seconds)
        answer = await self._ask("task_output", request, ANSWER_SECONDS + block_seconds)
        return wire.adapter(TaskOutput).validate_json(answer)

    async def kill_task(self, task_id: str, key: str, epoch: int) -> Task:
        answer = await self._ask("kill_task", wire.KillTask(task_id, key, epoch))
        return wire.adapter(Task).validate_json(answer)

    async def tasks(self) -> list[Task]:
        return wire.adapter(list[Task]).validate_json(await self._ask("tasks", wire.Nothing()))

    async def ports(self) -> list[int]:
        answer = await self._ask("ports", wire.Nothing())
        return list(wire.adapter(wire.PortsAnswer).validate_json(answer).ports)

    async def expose(self, port: int, seconds: int) -> None:
        return None

    async def cancel(self, run_id: str, epoch: int) -> None:
        await self._ask("cancel", wire.Cancel(run_id, epoch))

    async def read(self, path: str, offset: int = 0, limit: int | None = None) -> FileData:
        head, _, content = (await self._ask("read", wire.Read(path, offset, limit))).partition(b"\n")
        told = wire.adapter(wire.ReadHead).validate_json(head)
        return FileData(told.info, content, told.sha256)

    async def stat(self, path: str) -> FileInfo:
        return wire.adapter(FileInfo).validate_json(await self._ask("stat", wire.Stat(path)))

    async def hashes(self, paths: Sequence[str]) -> dict[str, str | None]:
        answer = await self._ask("hashes", wire.Hashes(paths))
        return wire.adapter(dict[str, str | None]).validate_json(answer)

    async def list(self, path: str, depth: int = 1, ignore: Sequence[str] = (), limit: int = 500) -> Listing:
        return wire.adapter(Listing).validate_json(await self._ask("list", wire.List(path, depth, ignore, limit)))

    async def write(self, files: Sequence[FileWrite], key: str, epoch: int, note: bytes) -> WriteResult:
        plan = [wire.PlannedFile(file.path, len(file.content), file.executable, file.expect) for file in files]
        head = wire.encode(wire.WriteHead(key, epoch, len(note), plan))
        body = b"".join((head, b"\n", *(file.content for file in files), note))
        written = wire.adapter(wire.Written).validate_json(await self._post("write", body))
        return WriteResult(written.note, written.repeated)

    async def recall(self, key: str, epoch: int) -> bytes | None:
        return wire.adapter(wire.Note).validate_json(await self._ask("recall", wire.Recall(key, epoch))).note

    @asynccontextmanager
    async def packed(self, exclude: Sequence[str], known: str, max_bytes: int) -> AsyncIterator[Packed]:
        asked = wire.Outgoing("pack", WORKSPACE, exclude=exclude, known=known, max_bytes=max_bytes)
        async with self._connection.fetch(f"{self._path}/outgoing", wire.encode(asked)) as pieces:
            line, rest = await _first_line(pieces)
            head = wire.adapter(wire.OutgoingHead).validate_json(line)
            yield Packed(head.fingerprint or "", None if head.unchanged else _after(rest, pieces))

    async def fill(self, pieces: AsyncIterator[bytes]) -> None:
        head = wire.encode(wire.Incoming("fill", WORKSPACE)) + b"\n"
        await self._connection.send(f"{self._path}/incoming", _after(head, pieces))
        self.blank = False

    async def _ask(self, operation: str, request: Any, seconds: float = ANSWER_SECONDS) -> bytes:
        return await self._post(operation, wire.encode(request), seconds)

    async def _post(self, operation: str, body: bytes, seconds: float = ANSWER_SECONDS) -> bytes:
        async with self._noticing():
            return await self._connection.ask(f"{self._path}/{operation}", body, seconds)

    @asynccontextmanager
    async def _noticing(self) -> AsyncIterator[None]:
        """Where another host than before answers, even by an error, `ref` and `notice` tell so from then on."""
        try:
            yield
        except SandboxError:
            await self._look_again()
            raise
        await self._look_again()

    async def _look_again(self) -> None:
        if self._connection.host == self.ref["host"]:
            return
        with contextlib.suppress(SandboxError):  # then the next answer is the occasion
            answer = await self._connection.ask(f"{self._path}/acquire", wire.encode(wire.Acquire(self.ref)))
            acquired = wire.adapter(wire.Acquired).validate_json(answer)
            self.ref, self.notice = acquired.ref, acquired.notice or self.notice

    async def _follow(self, operation: str, request_from: Callable[[int], Any], on_output: OnOutput) -> wire.Progress:
        def text(piece: str) -> Awaitable[None]:
            return on_output(STREAM, piece)

        def body_from(offset: int) -> bytes:
            return wire.encode(request_from(offset))

        async with self._noticing():
            return await self._connection.follow(f"{self._path}/{operation}", body_from, text)


async def _first_line(pieces: AsyncIterator[bytes]) -> tuple[bytes, bytes]:
    line = b""
    while b"\n" not in line and (piece := await anext(pieces, b"")):
        line += piece
    head, _, rest = line.partition(b"\n")
    return head, rest


async def _after(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece
