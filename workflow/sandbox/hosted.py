"""A thread's sandbox as its host keeps it: the processes while it runs, and what outlives them."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from shared.types import JSON
from workflow.sandbox.base import (
    MAX_READ_BYTES,
    FileData,
    FileInfo,
    FileWrite,
    Listing,
    NotListening,
    SandboxLost,
    SandboxRefused,
    SandboxUnavailable,
    TaskOutput,
    WriteResult,
)
from workflow.sandbox.bounds import MAX_DEPTH, MAX_ENTRIES, bytes_to_read, check_read, check_write
from workflow.sandbox.bwrap import disk_usage_command
from workflow.sandbox.commands import Commands
from workflow.sandbox.egress import narrowed, network_of
from workflow.sandbox.handed import Handed
from workflow.sandbox.inside import Ground, Inside
from workflow.sandbox.limits import NO_LIMITS, Limits
from workflow.sandbox.link import LinkClosed
from workflow.sandbox.logbook import Logbook
from workflow.sandbox.notes import Notes
from workflow.sandbox.sandboxd_text import whole_characters
from workflow.sandbox.wire import HashesAnswer, PortsAnswer, ReadHead, StatAnswer, adapter

log = logging.getLogger("trunkline.sandbox")

NOTES_FOLDER = ".host"  # beside the workspaces; no thread id looks like it
TASK_OUTPUT_BYTES = 64 * 1024
REST_BYTES = 1024**2  # of output kept of a sandbox that rests
DISK_IS_FULL = "the sandbox is over its disk limit: delete files first"

T = TypeVar("T")


class HostedSandbox:
    """Made when first asked for; its process is started when there is something to do, and may end and start again."""

    def __init__(
        self,
        thread_id: str,
        ground: Ground,
        workspaces: Path,
        start: Callable[["HostedSandbox"], Awaitable[Inside]],
        on_output: Callable[[int], None],
    ) -> None:
        """`start` makes its processes, and raises SandboxUnavailable; `on_output` hears how much its commands write."""
        self.thread_id = thread_id
        self.workspace = workspaces / thread_id
        self.had_files = self.workspace.exists()
        notes = workspaces / NOTES_FOLDER
        notes.mkdir(mode=0o700, exist_ok=True)
        self._blank = notes / f"{thread_id}.blank"
        if not self.had_files:
            self._blank.touch()
        self.blank = self._blank.exists()
        """Made, and no command or file has been in it: what the thread had elsewhere may be brought here."""
        self.workspace.mkdir(mode=0o700, exist_ok=True)
        self._logbook = Logbook(notes / f"{thread_id}.jsonl")
        self._notes = Notes(notes / f"{thread_id}.notes")
        self.commands = Commands(ground.settings, self._logbook, self._running, on_output)
        self.inside: Inside | None = None
        self.life = secrets.token_hex(4)
        """Another one whenever processes were lost."""
        self.disk_is_full = False
        self.network = network_of(ground.settings)
        """What it reaches now: what the run of its latest command may."""
        self.ground = self._host_ground = ground
        """What it stands on when it is started next."""
        self._limits = NO_LIMITS
        self._started_on: Ground | None = None
        self._start = start
        self._starting = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None
        self._writing: dict[str, asyncio.Future[None]] = {}
        self._users = 0
        self._dialled = 0
        self._last_used = time.monotonic()

    # --- its process

    @asynccontextmanager
    async def used(self) -> AsyncIterator[None]:
        """While somebody waits for it, it is not idle."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._last_used = time.monotonic()

    def idle_seconds(self) -> float:
        foreground = any(record.foreground for record in self.commands.running)
        return 0 if self._users or foreground else time.monotonic() - self._last_used

    def settle(self) -> None:
        """From now on it is not blank, even if the host restarts."""
        if self.blank:
            self._blank.unlink(missing_ok=True)
            self.blank = False

    def disk_usage_command(self) -> list[str]:
        return disk_usage_command(self._host_ground.profile, self.workspace)

    def keep_to(self, hosts: Sequence[str] | None) -> None:
        """Raises SandboxRefused."""
        self.network = narrowed(self._host_ground.settings, hosts)

    async def limit(self, limits: Limits) -> None:
        """It is started anew with them, unless something goes on in it: then they hold when it is started next."""
        if limits != self._limits:
            self._limits = limits
            self.ground = self._host_ground.limited(limits)
            self.commands.settings = self.ground.settings
        if self.inside and self._started_on is not self.ground and self._users <= 1 and not self.commands.running:
            await self.stop("its limits are others now")

    async def stop(self, reason: str) -> None:
        """Ends its processes; its files stay. `reason` is told to those whose command ends with it."""
        async with self._starting:
            ending = self.commands.begun  # now: what begins from here on has processes of its own
            if self.inside and self._watch:
                self.commands.end_reason = reason
                self.inside.kill()
                await asyncio.wait([self._watch])
        await asyncio.gather(*(record.wait() for record in ending))
        self.commands.trim(REST_BYTES)

    async def _running(self) -> Inside:
        """Raises SandboxUnavailable."""
        async with self._starting:
            if self.inside is None or not self.inside.running:
                if self._watch:
                    await asyncio.wait([self._watch])
                self.commands.end_reason = None
                self._started_on = self.ground
                self.inside = await self._start(self)
                self._watch = asyncio.create_task(self._wait_for_end(self.inside))
            return self.inside

    async def _wait_for_end(self, inside: Inside) -> None:
        await inside.link.closed.wait()
        if self.commands.begun:
            self.life = secrets.token_hex(4)
        try:
            await inside.stop()
        except Exception:  # it must be possible to start it again
            log.exception("sandbox %s did not end in good order", self.thread_id)
        finally:
            self.inside = None

    # --- files

    async def read(self, path: str, offset: int, limit: int | None) -> FileData:
        wanted = {"op": "read", "path": path, "offset": offset, "limit": bytes_to_read(limit)}
        answer, content = await self._ask(ReadHead, wanted)
        check_read(path, answer.info.size, offset, limit)
        return FileData(answer.info, content, answer.sha256)

    async def stat(self, path: str) -> FileInfo:
        answer, _ = await self._ask(StatAnswer, {"op": "stat", "path": path})
        return answer.info

    async def hashes(self, paths: Sequence[str]) -> dict[str, str | None]:
        answer, _ = await self._ask(HashesAnswer, {"op": "hashes", "paths": list(paths)})
        if len(answer.hashes) != len(paths):
            raise SandboxRefused("the sandbox gave an answer that makes no sense")
        return dict(zip(paths, answer.hashes, strict=True))

    async def list(self, path: str, depth: int, ignore: Sequence[str], limit: int) -> Listing:
        bounds = {"depth": min(depth, MAX_DEPTH), "limit": min(limit, MAX_ENTRIES)}
        answer, _ = await self._ask(Listing, {"op": "list", "path": path, "ignore": list(ignore), **bounds})
        return answer

    async def write(self, files: Sequence[FileWrite], key: str, epoch: int, note: bytes) -> WriteResult:
        """A repeated key waits for the first call with it, if that is still at work."""
        self.commands.fence(key, epoch)
        if (recorded := await self._recorded(key)) is not None:
            return WriteResult(recorded, repeated=True)
        if key in self._logbook.begun:
            raise _lost(key)
        check_write(files, note)
        self.settle()
        self._logbook.begin(key, epoch)
        self._writing[key] = asyncio.get_running_loop().create_future()
        try:
            await self._write(files)
            self._notes.keep(key, note)
        except (SandboxRefused, SandboxUnavailable):  # nothing was written
            self._logbook.forget(key)
            raise
        finally:
            self._writing.pop(key).set_result(None)
        return WriteResult(note, repeated=False)

    async def recall(self, key: str, epoch: int) -> bytes | None:
        self.commands.fence(key, epoch)
        recorded = await self._recorded(key)
        if recorded is None and self._logbook.cannot_tell(key):
            raise _lost(key)
        return recorded

    async def _recorded(self, key: str) -> bytes | None:
        while key in self._writing:
            await asyncio.shield(self._writing[key])
        return self._notes.get(key)

    async def _write(self, files: Sequence[FileWrite]) -> None:
        if self.disk_is_full:
            raise SandboxRefused(DISK_IS_FULL)
        plan = [
            {"path": file.path, "size": len(file.content), "executable": file.executable, "expect": file.expect}
            for file in files
        ]
        await self._ask(dict, {"op": "write", "files": plan}, b"".join(file.content for file in files))

    # --- ports

    async def ports(self) -> PortsAnswer:
        if self.inside is None:  # at rest: nothing listens
            return PortsAnswer([])
        answer, _ = await self._ask(PortsAnswer, {"op": "ports"})
        return answer

    @asynccontextmanager
    async def dial(self, port: int) -> AsyncIterator[Handed]:
        """A connection to a port inside. Raises NotListening, SandboxLost; SandboxRefused when there are too many."""
        if self._dialled >= self._host_ground.settings.port_connections:
            raise SandboxRefused(f"{self._dialled} connections to the sandbox's ports are open: close some")
        if self.inside is None:
            raise NotListening(port, [])
        self._dialled += 1
        try:
            async with self._holding(self.inside.dial(port)) as handed:
                yield handed
        finally:
            self._dialled -= 1

    @asynccontextmanager
    async def transfer(self, request: JSON) -> AsyncIterator[Handed]:
        """A socket to a program that moves files, see sandboxd_transfer.py. Raises SandboxError."""
        if self.disk_is_full and request["op"] in ("take", "unpack", "fill"):
            raise SandboxRefused(DISK_IS_FULL)
        async with self._holding((await self._running()).transfer(request)) as handed:
            yield handed
        if request["op"] == "fill":
            self.settle()

    @asynccontextmanager
    async def _holding(self, opening: Awaitable[Handed]) -> AsyncIterator[Handed]:
        async with self.used():
            try:
                handed = await opening
            except LinkClosed as error:
                raise SandboxLost(f"the sandbox ended meanwhile: {error}") from error
            with handed:
                yield handed

    # --- the output of commands

    async def save_output(self, output_of: str, path: str, key: str, epoch: int) -> None:
        self.commands.fence(key, epoch)
        spool = self.commands.output_of(output_of).spool
        head, _ = spool.read(0, MAX_READ_BYTES)
        tail, start = spool.read(len(head), MAX_READ_BYTES)
        gap = f"\n[{start - len(head)} bytes left out]\n".encode() if start > len(head) else b""
        await self._write([FileWrite(path, head + gap + tail)])

    async def task_output(self, task_id: str, offset: int, block_seconds: float) -> TaskOutput:
        record = self.commands.task(task_id)
        if block_seconds > 0:
            await record.wait(block_seconds)
        data, start = record.spool.read(offset, TASK_OUTPUT_BYTES)
        at_end = record.ended and start + len(data) == record.spool.total
        data = data if at_end else data[: whole_characters(data)]
        return TaskOutput(record.task(), data.decode(errors="replace"), start + len(data), start - offset)

    async def _ask(self, kind: type[T], message: JSON, data: bytes = b"") -> tuple[T, bytes]:
        """An answer of sandboxd as what it should be. Raises SandboxError."""
        inside = await self._running()
        try:
            answer, received = await inside.ask(message, data)
            return adapter(kind).validate_python(answer), received
        except LinkClosed as error:
            raise SandboxLost(f"the sandbox ended meanwhile: {error}") from error
        except ValidationError as error:
            raise SandboxRefused("the sandbox gave an answer that makes no sense") from error


def _lost(key: str) -> SandboxLost:
    return SandboxLost(f"{key} was begun earlier: whether it was written is not known any more")
