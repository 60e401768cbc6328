"""The sandbox protocol: what tools are written against, whoever provides the sandbox.

A sandbox belongs to a thread and outlives the worker that uses it. Every call with an effect carries the caller's `key`
("{run_id}/{step_key}") and `epoch`: a repeated key re-attaches to what it began, and the epoch of an attempt that has
been superseded is refused (SandboxFenced). Paths are absolute, or relative to WORKSPACE.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol, runtime_checkable

from shared.errors import AppError, ErrorCode
from shared.types import JSON

WORKSPACE = "/workspace"
TEMPLATES = "/opt/templates"
"""Where a sandbox has what code templates depend on, read-only, if it has it."""
MAX_READ_BYTES = 16 * 1024 * 1024
"""One `read` answers at most this much; a larger file is read in pieces."""
MAX_WRITE_BYTES = 8 * 1024 * 1024
"""All files of one `write` together."""
MAX_COMMAND_BYTES = 120_000
"""A command is one argument of bash, and Linux takes at most 128 KiB for one."""

OnOutput = Callable[[str, str], Awaitable[None]]
"""Gets (stream, text) as a command writes. The stream of a local sandbox is always "output": stdout and stderr share
one pipe, because two would lose the order in which they were written."""


class SandboxError(AppError):
    """The family of everything a sandbox raises."""

    family_code = ErrorCode.SANDBOX_ERROR

    def __init__(self, detail: str) -> None:
        super().__init__(self.family_code, detail)


class SandboxUnavailable(SandboxError):
    """No sandbox is to be had here now, or its host does not answer. What goes on in it may go on: ask again later. The
    detail names cause and cure."""

    family_code = ErrorCode.SANDBOX_UNAVAILABLE


class SandboxLost(SandboxError):
    """It began, but the sandbox ended since (its machine or its host restarted): nobody can tell the outcome."""

    family_code = ErrorCode.SANDBOX_LOST


class SandboxFenced(SandboxError):
    """A newer attempt of the run has the sandbox: stop."""

    family_code = ErrorCode.SANDBOX_FENCED


class SandboxRefused(SandboxError):
    """The request itself cannot be done: too large, a folder that is not there, a task nobody knows."""


class NotListening(SandboxRefused):
    """Nothing in the sandbox listens on the port. `ports`: those on which something does."""

    def __init__(self, port: int, ports: Sequence[int]) -> None:
        others = f"these ports are listened on: {', '.join(map(str, ports))}" if ports else "nor on any other"
        super().__init__(f"nothing listens on port {port}; {others}")
        self.port = port
        self.ports = list(ports)


class FileError(SandboxRefused):
    """A file operation that failed; `path` as the sandbox resolved it. Nothing was changed."""

    def __init__(self, detail: str, path: str) -> None:
        super().__init__(detail)
        self.path = path


class FileMissing(FileError):
    """There is no such file."""


class NotRegular(FileError):
    """There is something, but no regular file (or no folder where one was wanted). `kind` says what."""

    def __init__(self, detail: str, path: str, kind: "FileKind") -> None:
        super().__init__(detail, path)
        self.kind = kind


class FileChanged(FileError):
    """`FileWrite.expect` does not hold. `sha256` is the file's actual hash, None when it is absent."""

    def __init__(self, detail: str, path: str, sha256: str | None) -> None:
        super().__init__(detail, path)
        self.sha256 = sha256


class FileKind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"  # a FIFO, a socket, a device


class ExecStatus(StrEnum):
    EXITED = "exited"
    RUNNING = "running"  # in the background
    KILLED = "killed"


@dataclass(frozen=True, slots=True)
class Command:
    """One shell command. When `timeout_seconds` are over it is not killed: it goes on in the background as a task.

    `cwd` None: where the last foreground command ended. `output_chars` caps `ExecResult.output`.
    """

    key: str
    epoch: int
    command: str
    cwd: str | None = None
    timeout_seconds: float = 120
    background: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    output_chars: int = 30_000


@dataclass(frozen=True, slots=True)
class Output:
    """Text, cut in the middle where it was too long: `head`, then `omitted_bytes` left out, then `tail`.

    `cut_line` is the line (from 1) on which the cut starts; 0 when nothing was left out.
    """

    head: str
    tail: str = ""
    omitted_bytes: int = 0
    cut_line: int = 0

    @property
    def truncated(self) -> bool:
        return self.omitted_bytes > 0


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ended, or where it goes on.

    `exit_code` is the shell's (137 when killed by SIGKILL); None while it runs. `dropped_bytes`: written, but more than
    the sandbox keeps. `task_id` ("bg_3") names it in the background. `killed_by` says why, such as "sandbox memory
    limit 1 GiB".
    """

    status: ExecStatus
    exit_code: int | None
    output: Output
    dropped_bytes: int
    task_id: str | None
    cwd: str
    duration_ms: int
    killed_by: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A command in the background, running or ended. `command` may be the beginning of a long one."""

    task_id: str
    key: str
    command: str
    status: ExecStatus
    exit_code: int | None
    duration_ms: int
    killed_by: str | None


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """What a task wrote from `offset` on; ask again at `next_offset`. `skipped_bytes` before the text were dropped."""

    task: Task
    text: str
    next_offset: int
    skipped_bytes: int


@dataclass(frozen=True, slots=True)
class FileInfo:
    path: str
    kind: FileKind
    size: int
    mode: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class FileData:
    """A piece of a regular file. `size` and `sha256` are the whole file's; no hash above 64 MiB."""

    info: FileInfo
    content: bytes
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of a listing; `path` is relative to the listed folder.

    `children`: how many items a folder holds that the listing did not go into (too deep, or ignored).
    """

    path: str
    kind: FileKind
    size: int
    mtime_ns: int
    children: int | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    path: str
    entries: list[Entry]
    truncated: bool


@dataclass(frozen=True, slots=True)
class FileWrite:
    """One file to be. `executable` None keeps an existing mode.

    `expect`: a sha256, "absent", "present", or None (anything).
    """

    path: str
    content: bytes
    executable: bool | None = None
    expect: str | Literal["absent", "present"] | None = None


@dataclass(frozen=True, slots=True)
class WriteResult:
    """`note` is the caller's, from the call that wrote; `repeated` when that was an earlier one with the same key."""

    note: bytes
    repeated: bool


@dataclass(frozen=True, slots=True)
class Network:
    """What a sandbox reaches of it. `hosts` where that is some, by name, `*.` for all names below one.

    `proxy`: only programs that keep to HTTP_PROXY and HTTPS_PROXY reach anything.
    """

    policy: Literal["none", "allow", "open"] = "none"
    hosts: Sequence[str] = ()
    proxy: bool = False

    @property
    def text(self) -> str:
        """For a model: what there is to be reached, and how."""
        match self.policy:
            case "none":
                return "This sandbox has no network: work with what is installed and what is in /workspace."
            case "allow":
                what = f"This sandbox reaches only these hosts: {', '.join(self.hosts)}"
            case "open":
                what = "This sandbox reaches public hosts"
        how = ", over HTTP and HTTPS only, by the proxy that HTTP_PROXY and HTTPS_PROXY name" if self.proxy else ""
        return f"{what}{how}."


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do beyond the protocol."""

    network: Network = Network()
    processes: int | None = None
    """And threads, that it may have at once; None: nobody knows."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`url`: the origin of a port's pages. `expires_at` in seconds since 1970; None: with the sandbox.

    `public`: it has no ticket, and lets in whoever knows the machine's id.
    """

    url: str
    expires_at: float | None
    public: bool


class Sandbox(Protocol):
    """Every method may raise SandboxUnavailable and SandboxLost; those with an epoch, SandboxFenced."""

    @property
    def ref(self) -> JSON:
        """How to find it again: kept in the thread's metadata, given to `acquire`."""

    @property
    def notice(self) -> str | None:
        """What happened to the sandbox since `ref` was kept, for the model to read; None: nothing."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def exec(self, command: Command, on_output: OnOutput) -> ExecResult:
        """Runs it, or re-attaches to it: then `on_output` gets all its output from the start (as far as it is kept)."""

    async def attach(self, key: str, epoch: int, on_output: OnOutput) -> ExecResult | None:
        """Follows a command that an earlier attempt may have begun. None: it never began. Raises SandboxLost."""

    async def save_output(self, output_of: str, path: str, key: str, epoch: int) -> None:
        """Writes all output kept of the command `output_of` (a key) into a file of the sandbox, making its folders."""

    async def task_output(self, task_id: str, offset: int = 0, block_seconds: float = 0) -> TaskOutput:
        """Waits up to `block_seconds` for the task to end. Raises SandboxRefused (unknown), SandboxLost."""

    async def kill_task(self, task_id: str, key: str, epoch: int) -> Task:
        """SIGTERM, three seconds, SIGKILL, to the task's processes. A task that has ended stays as it is."""

    async def tasks(self) -> list[Task]: ...

    async def expose(self, port: int, seconds: int) -> Endpoint | None:
        """Where the provider itself serves the port, for so long; None: only the gateway does (shared/links.py)."""

    async def cancel(self, run_id: str, epoch: int) -> None:
        """Ends every foreground command of a run; returns when their processes are gone.

        Background tasks go on: they are the sandbox's, and a later run may want them. Raises SandboxUnavailable where
        nobody can tell yet whether they are gone: ask again.
        """

    async def read(self, path: str, offset: int = 0, limit: int | None = None) -> FileData:
        """Bytes of a regular file. Raises FileError; SandboxRefused when more than MAX_READ_BYTES would come."""

    async def stat(self, path: str) -> FileInfo:
        """Follows symbolic links. Raises FileMissing."""

    async def hashes(self, paths: Sequence[str]) -> dict[str, str | None]:
        """The sha256 of each path; None where there is no regular file of at most 64 MiB."""

    async def list(self, path: str, depth: int = 1, ignore: Sequence[str] = (), limit: int = 500) -> Listing:
        """A folder, parents before children. Names that match a glob of `ignore` are counted, not gone into."""

    async def write(self, files: Sequence[FileWrite], key: str, epoch: int, note: bytes) -> WriteResult:
        """Writes all the files or none, even when the sandbox is killed meanwhile; makes missing folders.

        Raises FileError (nothing written), FileChanged. `note` comes back from `recall`.
        """

    async def recall(self, key: str, epoch: int) -> bytes | None:
        """The note of a `write` that an earlier attempt may have done. None: it never did. Raises SandboxLost."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A workspace's files. `pieces` of a tar.gz; None: they are as they were when `fingerprint` was told."""

    fingerprint: str
    pieces: AsyncIterator[bytes] | None


@runtime_checkable
class Narrowable(Protocol):
    """A sandbox whose network a run can narrow."""

    def keep_to(self, hosts: Sequence[str]) -> None:
        """From the next command on it reaches these only (patterns as of `Network`). Raises SandboxRefused for others
        than the settings allow.
        """


@runtime_checkable
class Packable(Sandbox, Protocol):
    """A sandbox whose files can be taken as a whole, and put into another one."""

    blank: bool
    """It was made, and nothing has been in it yet: what the thread had elsewhere may be brought here."""
    notice: str | None

    def packed(self, exclude: Sequence[str], known: str, max_bytes: int) -> AbstractAsyncContextManager[Packed]:
        """The workspace without what bears a name of `exclude`. Raises SandboxRefused for more than `max_bytes`; while
        the pieces are read, SandboxUnavailable.
        """

    async def fill(self, pieces: AsyncIterator[bytes]) -> None:
        """Unpacks into the workspace, inside the sandbox. Done again after it broke off, it gives the same."""


class SandboxProvider(Protocol):
    async def acquire(self, thread_id: str, ref: JSON | None) -> Sandbox:
        """The thread's sandbox, made if need be. Raises SandboxUnavailable."""

    async def close(self) -> None: ...
