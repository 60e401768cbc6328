"""The words between the sandbox host and its clients.

    POST /sandboxes/{thread_id}/{operation}     Authorization: Bearer TOKEN

A request is one of the classes below as JSON; `write` and the answer of `read` are a line of JSON with the files' bytes
behind it. `exec` and `attach` answer with lines of JSON: a Progress each, the last one with `result` or `error`.

    POST /sandboxes/{thread_id}/ports/{port}

is a connection to a port inside: the body of the request goes to it, the answer's comes from it, both at the same time
and for as long as either lasts. The end of the request's body ends what goes in; what comes out may go on.

The answer's PORT_HEADERS, where it has them, are JSON: the headers that HTTP requests over the connection bear in place
of their own, by lower-case names.

Each answer but that to a wrong token bears HOST_HEADER, which is another one whenever the host was started anew.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, TypeAdapter
from pydantic_core import to_json

from shared.types import JSON
from workflow.sandbox.base import (
    Command,
    ExecResult,
    FileChanged,
    FileError,
    FileInfo,
    FileKind,
    FileMissing,
    Listing,
    Network,
    NotListening,
    NotRegular,
    SandboxError,
    SandboxFenced,
    SandboxLost,
    SandboxRefused,
    SandboxUnavailable,
)
from workflow.sandbox.limits import NO_LIMITS, Limits

T = TypeVar("T")

HOST_HEADER = "trunkline-host"
PORT_HEADERS = "trunkline-port-headers"
Key = Annotated[str, Field(min_length=1, max_length=500)]
FilePath = Annotated[str, Field(min_length=1, max_length=4096)]
Natural = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, le=3600)]
Port = Annotated[int, Field(ge=1, le=65535)]


def adapter(kind: type[T]) -> TypeAdapter[T]:
    """Making one costs far more than using it."""
    return _adapter(kind)  # type: ignore[arg-type]  # mypy does not see that a class is hashable


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def build_adapters() -> None:
    """All of them now: pydantic imports modules for it, and a process that has dropped its rights may not read them."""
    for kind in (*REQUESTS, *ANSWERS):
        adapter(kind)


@dataclass(frozen=True, slots=True)
class Acquire:
    """`redis`: the name of the one that knows the thread."""

    ref: JSON | None = None
    redis: str = ""


@dataclass(frozen=True, slots=True)
class Acquired:
    ref: JSON
    notice: str | None
    network: Network
    processes: int
    blank: bool = False


@dataclass(frozen=True, slots=True)
class Unused:
    """Sandboxes of threads that this Redis knows, or knew, and that were not used for so long."""

    redis: Annotated[str, Field(min_length=1)]
    seconds: Annotated[float, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class ThreadIds:
    thread_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Exec:
    """`offset`: how many bytes of output the client has already, from a connection that broke.

    `allowed_hosts`: the only ones that the sandbox reaches from now on; None: those of the settings. `limits`: what it
    has less of than the settings give.
    """

    command: Command
    offset: Natural = 0
    allowed_hosts: Sequence[str] | None = None
    limits: Limits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class Attach:
    key: Key
    epoch: Natural
    offset: Natural = 0
    output_chars: Natural = 30_000


@dataclass(frozen=True, slots=True)
class Progress:
    """`next_offset` is where the output goes on after `text`. Now and then an empty one says that the host is there."""

    text: str = ""
    next_offset: int = 0
    result: ExecResult | None = None
    unknown: bool = False
    error: JSON | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    run_id: Key
    epoch: Natural


@dataclass(frozen=True, slots=True)
class SaveOutput:
    output_of: Key
    path: FilePath
    key: Key
    epoch: Natural


@dataclass(frozen=True, slots=True)
class ReadOutput:
    task_id: Key
    offset: Natural = 0
    block_seconds: Seconds = 0


@dataclass(frozen=True, slots=True)
class KillTask:
    task_id: Key
    key: Key
    epoch: Natural


@dataclass(frozen=True, slots=True)
class Nothing:
    pass


@dataclass(frozen=True, slots=True)
class Read:
    path: FilePath
    offset: Natural = 0
    limit: Natural | None = None


@dataclass(frozen=True, slots=True)
class ReadHead:
    info: FileInfo
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Stat:
    path: FilePath


@dataclass(frozen=True, slots=True)
class StatAnswer:
    info: FileInfo


@dataclass(frozen=True, slots=True)
class Hashes:
    paths: Annotated[Sequence[FilePath], Field(max_length=1000)]


@dataclass(frozen=True, slots=True)
class HashesAnswer:
    hashes: Sequence[str | None]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A file (`send`) or a folder as tar.gz (`pack`). The answer is a line of JSON (OutgoingHead), then the bytes.

    `exclude` names what is left out of a folder. Where `known` is given, there is a fingerprint in the answer, no bytes
    where it is the same one, and a refusal of more than `max_bytes`.
    """

    op: Literal["send", "pack"]
    path: FilePath
    offset: Natural = 0
    length: Natural = 2**62
    exclude: Sequence[str] = ()
    known: str | None = None
    max_bytes: Natural = 2**62


@dataclass(frozen=True, slots=True)
class OutgoingHead:
    info: FileInfo
    sha256: str | None = None
    fingerprint: Annotated[str, Field(max_length=100)] | None = None
    unchanged: bool = False


@dataclass(frozen=True, slots=True)
class Incoming:
    """A file (`take`) or a tar.gz to unpack into a folder (`unpack`). The bytes come behind it; the answer is JSON.

    `fill` unpacks too, and then the sandbox is blank no more.

    A request whose body breaks off has no effect, or only that of the entries which were whole.
    """

    op: Literal["take", "unpack", "fill"]
    path: FilePath
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class Existence:
    """`exists`: whether the sandbox was ever made on this host."""

    exists: bool


@dataclass(frozen=True, slots=True)
class PortsAnswer:
    ports: Annotated[Sequence[Port], Field(max_length=1000)]


@dataclass(frozen=True, slots=True)
class List:
    path: FilePath
    depth: Natural = 1
    ignore: Sequence[str] = ()
    limit: Natural = 500


@dataclass(frozen=True, slots=True)
class PlannedFile:
    path: FilePath
    size: Natural
    executable: bool | None = None
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class WriteHead:
    """Behind it come the files' contents, one after the other, and then the note."""

    key: Key
    epoch: Natural
    note_size: Natural
    files: Annotated[Sequence[PlannedFile], Field(max_length=1000)]


@dataclass(frozen=True, slots=True)
class Recall:
    key: Key
    epoch: Natural


Base64 = Annotated[bytes, BeforeValidator(base64.urlsafe_b64decode)]  # as `encode` writes bytes


@dataclass(frozen=True, slots=True)
class Note:
    note: Base64 | None


@dataclass(frozen=True, slots=True)
class Written:
    note: Base64
    repeated: bool


def encode(value: Any) -> bytes:
    """As JSON, on one line; bytes as base64. Raises SandboxRefused for text that is no Unicode (a lone surrogate)."""
    try:
        return to_json(value, bytes_mode="base64")
    except ValueError as error:
        raise SandboxRefused(f"not valid text: {error}") from error


REQUESTS: tuple[type[Any], ...] = (
    *(Acquire, Unused, Exec, Attach, Cancel, SaveOutput, ReadOutput, KillTask, Nothing),
    *(Read, Stat, Hashes, List, WriteHead, Recall, Outgoing, Incoming),
)
ANSWERS: tuple[type[Any], ...] = (
    *(StatAnswer, ReadHead, HashesAnswer, PortsAnswer, OutgoingHead, Existence),
    *(Listing, ThreadIds, dict),
)


# --- errors

_ERRORS: Mapping[str, type[SandboxError]] = {
    kind.__name__: kind for kind in (SandboxError, SandboxRefused, SandboxFenced, SandboxLost, SandboxUnavailable)
}
_FILE_ERRORS: Mapping[str, type[FileError]] = {kind.__name__: kind for kind in (FileError, FileMissing)}


def error_to_json(error: SandboxError) -> JSON:
    told: JSON = {"error": type(error).__name__, "detail": error.detail}
    if isinstance(error, FileError):
        told["path"] = error.path
    if isinstance(error, NotListening):
        told |= {"port": error.port, "ports": error.ports}
    if isinstance(error, NotRegular):
        told["kind"] = error.kind
    if isinstance(error, FileChanged):
        told["sha256"] = error.sha256
    return told


def error_from_json(told: JSON) -> SandboxError:
    name, detail = told["error"], told["detail"]
    if name == NotListening.__name__:
        return NotListening(told["port"], told["ports"])
    if name == NotRegular.__name__:
        return NotRegular(detail, told["path"], FileKind(told["kind"]))
    if name == FileChanged.__name__:
        return FileChanged(detail, told["path"], told["sha256"])
    if name in _FILE_ERRORS:
        return _FILE_ERRORS[name](detail, told["path"])
    return _ERRORS[name](detail)
