"""Moves files in and out of a sandbox, as long as they may be: a program of its own for each, on a socket to the host.

    python3 -I -S ARCHIVE transfer REQUEST

Frames (frames.py) on standard input and output. Outward, the first one describes what comes, the data of the others is
it. Inward it is the other way round: data first, then an answer. `done` stands in the last frame of what is sent: where
it is missing, the sender broke off. An answer with `error` is a refusal, as sandboxd's are.

Runs inside the sandbox: standard library only, nothing newer than Python 3.9.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import stat
import sys
import tarfile
import zlib

from workflow.sandbox import sandboxd_files as files
from workflow.sandbox import sandboxd_write as writing
from workflow.sandbox.frames import Decoder, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Message = dict[str, Any]

PIECE = 256 * 1024
FOLDER_MODE = 0o755
COMPRESSION = 1  # gzip's: five times as fast as its own choice, for a tenth more bytes
MTIME_NS = 100_000  # what a tar archive keeps of a moment


class BrokenOff(Exception):
    """The host sends no more, and had not finished."""


def send(request: Message) -> None:
    answer, pieces = files.read(request["path"], request["offset"], request["length"])
    _put(answer)
    for piece in pieces:
        _put({}, piece)
    _put({"done": True})


def take(request: Message) -> None:
    """The file appears when all of it has come, or not at all."""
    file = {"path": request["path"], "executable": None, "expect": request["expect"]}
    target, mode = writing.check(file)
    digest = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        for piece in _pieces():
            digest.update(piece)
            yield piece

    with contextlib.ExitStack() as stack:
        temporary = writing.stage(file["path"], target, mode, pieces())
        stack.callback(os.unlink, temporary)
        writing.check(file)
        os.replace(temporary, target)
        stack.pop_all()
    _put({"info": files.info(target), "sha256": digest.hexdigest(), "done": True})


def pack(request: Message) -> None:
    """A folder's files, folders and links as tar.gz; what cannot be read is left out, and what `exclude` names.

    `known`: a fingerprint of what need not be sent again. Raises Refused for more than `max_bytes`.
    """
    found = files.info(request["path"])
    if found["kind"] != "directory":
        text = f"{request['path']} is a {found['kind']}, not a folder"
        raise files.Refused("not_regular", text, request["path"], file_kind=found["kind"])
    fingerprint = _fingerprint(request) if request["known"] is not None else None
    unchanged = fingerprint is not None and fingerprint == request["known"]
    _put({"info": found, "fingerprint": fingerprint, "unchanged": unchanged})
    if not unchanged:
        with (
            io.BufferedWriter(_Outward(), PIECE) as outward,
            gzip.GzipFile("", "wb", COMPRESSION, outward, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w|", bufsize=PIECE) as archive,
        ):
            for path in _paths(request):
                _add(archive, path, os.path.relpath(os.path.dirname(path), request["path"]))
    _put({"done": True})


def _paths(request: Message) -> Iterator[str]:
    exclude = set(request["exclude"])
    for folder, folders, names in os.walk(request["path"]):
        folders[:] = [name for name in folders if name not in exclude]
        for name in sorted((*folders, *names)):
            if name not in exclude:
                yield os.path.join(folder, name)


def _fingerprint(request: Message) -> str:
    """Another one whenever a file was added, removed, renamed or written. Raises Refused."""
    digest, size = hashlib.sha256(), 0
    for path in _paths(request):
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(path)
            regular = stat.S_ISREG(status.st_mode)
            facts = (status.st_size, status.st_mtime_ns // MTIME_NS) if regular else ()
            digest.update(repr((os.fsencode(path), status.st_mode, *facts)).encode())
            size += status.st_size if regular else 0
    if size > request["max_bytes"]:
        raise files.Refused("failed", f"the files have {size} bytes, more than {request['max_bytes']}")
    return digest.hexdigest()


def _add(archive: tarfile.TarFile, path: str, folder: str) -> None:
    member = archive.gettarinfo(path, os.path.normpath(os.path.join(folder, os.path.basename(path))))
    if member is None or not (member.isdir() or member.issym() or member.isreg() or member.islnk()):
        return
    if not member.isreg():
        archive.addfile(member)
    elif os.access(path, os.R_OK):
        with open(path, "rb") as file:
            archive.addfile(member, file)


def unpack(request: Message) -> None:
    """Files, folders and links of a tar.gz into a folder, each over what was there."""
    count = 0
    os.makedirs(request["path"], exist_ok=True)
    inward = _Inward()
    with tarfile.open(fileobj=inward, mode="r|gz", bufsize=PIECE) as archive:
        for member in archive:
            _check(member)
            member.mode = FOLDER_MODE if member.isdir() else member.mode & 0o755 | 0o600
            archive.extract(member, request["path"], set_attrs=not member.issym())
            count += 1
    inward.finish()
    _put({"count": count, "done": True})


def _check(member: tarfile.TarInfo) -> None:
    """Raises Refused for what would land elsewhere. It is the sandbox's wall that keeps the rest of the world out."""
    name = files.printable(member.name)
    for path in (member.name, member.linkname if member.islnk() else ""):
        if path.startswith("/") or ".." in path.split("/"):
            raise files.Refused("failed", f"the archive has an entry outside of its folder: {name}", name)
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise files.Refused("failed", f"the archive has an entry that is no file, folder or link: {name}", name)


class _Outward(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), PIECE):
            _put({}, view[start : start + PIECE])
        return len(view)


class _Inward(io.RawIOBase):
    """What comes, as the file that tarfile wants."""

    def __init__(self) -> None:
        self._pieces = _pieces()
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next(self._pieces, b"")
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def finish(self) -> None:
        """Reads what stands behind the archive. Raises BrokenOff."""
        for _ in self._pieces:
            pass


def _pieces() -> Iterator[bytes]:
    """Raises BrokenOff."""
    decoder = Decoder()
    while chunk := os.read(0, PIECE):
        for message, data in decoder.feed(chunk):
            if data:
                yield data
            if message.get("done"):
                return
    raise BrokenOff


def _put(message: Message, data: bytes | memoryview = b"") -> None:
    frame = memoryview(encode(message, data))
    while frame:
        frame = frame[os.write(1, frame) :]


OPERATIONS: dict[str, Callable[[Message], None]] = {
    "send": send,
    "take": take,
    "pack": pack,
    "unpack": unpack,
    "fill": unpack,
}


def main() -> None:
    request = json.loads(sys.argv[2])
    try:
        OPERATIONS[request["op"]](request)
    except files.Refused as refused:
        _put({**refused.answer, "done": True})
    except (tarfile.TarError, zlib.error, EOFError) as error:
        _put({**files.Refused("failed", f"it is no archive (tar.gz): {error}").answer, "done": True})
    except (OSError, ValueError) as error:
        _put({**files.refusal(error, request["path"]).answer, "done": True})
    except BrokenOff:
        sys.exit(1)
