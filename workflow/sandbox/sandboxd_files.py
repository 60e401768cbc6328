"""The file operations of sandboxd. They run inside the sandbox, where a symbolic link or `..` leads nowhere else.

Standard library only, nothing newer than Python 3.9. Arguments come from the sandbox host, which has checked them.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import stat

TYPE_CHECKING = False  # importing typing would cost every cold start 4 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

MAX_HASHED = 64 * 1024 * 1024
MAX_SCANNED = 20_000  # items of one folder; the rest is not looked at
PIECE = 256 * 1024
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a FIFO or a device must not make us wait


class Refused(Exception):
    """What the host answers its caller: `kind` is one of missing, not_regular, changed, failed."""

    def __init__(self, kind: str, text: str, path: str = "", **details: Any) -> None:
        super().__init__(text)
        self.answer = {"error": kind, "text": text, "path": path, **details}


def refusal(error: OSError | ValueError, path: str) -> Refused:
    if isinstance(error, FileNotFoundError):
        return Refused("missing", f"{path} does not exist", path)
    if isinstance(error, OSError):
        return Refused("failed", f"{path}: {os.strerror(error.errno or errno.EIO)}", path)
    return Refused("failed", f"{printable(path)!r} is not a valid path", printable(path))


def printable(name: str) -> str:
    """A file name as text that any JSON library takes: bytes that are not UTF-8 become U+FFFD."""
    return name.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def kind_of(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else "other"


def info(path: str) -> dict[str, Any]:
    """Follows symbolic links. Raises Refused."""
    try:
        return _info(path, os.stat(path))
    except (OSError, ValueError) as error:
        raise refusal(error, path) from error


def _info(path: str, status: os.stat_result) -> dict[str, Any]:
    return {
        "path": printable(path),
        "kind": kind_of(status.st_mode),
        "size": status.st_size,
        "mode": stat.S_IMODE(status.st_mode),
        "mtime_ns": status.st_mtime_ns,
    }


def open_regular(path: str) -> int:
    try:
        fd = os.open(path, _READ)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise Refused("not_regular", f"{path} is not a regular file", path, file_kind="other") from error
        raise refusal(error, path) from error
    except ValueError as error:
        raise refusal(error, path) from error
    kind = kind_of(os.fstat(fd).st_mode)
    if kind != "file":
        os.close(fd)
        raise Refused("not_regular", f"{path} is a {kind}, not a regular file", path, file_kind=kind)
    return fd


def read(path: str, offset: int, limit: int) -> tuple[dict[str, Any], Iterator[bytes]]:
    """The file's info and hash, and then its bytes in pieces: `limit` of them from `offset` on. Raises Refused."""
    fd = open_regular(path)
    status = os.fstat(fd)
    wanted = min(limit, max(0, status.st_size - offset))
    answer = {"info": _info(path, status), "sha256": _hash_of(fd, status.st_size)}
    return answer, _pieces(fd, offset, wanted)


def _pieces(fd: int, offset: int, wanted: int) -> Iterator[bytes]:
    try:
        while wanted > 0:
            piece = os.pread(fd, min(PIECE, wanted), offset)
            if not piece:
                return
            yield piece
            offset += len(piece)
            wanted -= len(piece)
    finally:
        os.close(fd)


def _hash_of(fd: int, size: int) -> str | None:
    if size > MAX_HASHED:
        return None
    import hashlib  # noqa: PLC0415 - loading OpenSSL would cost every cold start 3 ms

    digest, offset = hashlib.sha256(), 0
    while offset <= MAX_HASHED:
        piece = os.pread(fd, PIECE, offset)
        if not piece:
            return digest.hexdigest()
        digest.update(piece)
        offset += len(piece)
    return None  # it grew while we read


def sha256(path: str) -> str | None:
    """None where there is no regular file, or one too large."""
    try:
        fd = open_regular(path)
    except Refused:
        return None
    try:
        return _hash_of(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def listing(path: str, depth: int, ignore: Sequence[str], limit: int) -> dict[str, Any]:
    """The items of a folder, parents before children, by name. Raises Refused."""
    found = info(path)
    if found["kind"] != "directory":
        raise Refused("not_regular", f"{path} is a {found['kind']}, not a folder", path, file_kind=found["kind"])
    walk = _Walk(ignore, limit)
    try:
        walk.into(path, "", depth)
    except OSError as error:
        raise refusal(error, path) from error
    return {"path": printable(path), "entries": walk.entries, "truncated": walk.truncated}


class _Walk:
    def __init__(self, ignore: Sequence[str], limit: int) -> None:
        self._ignore = ignore
        self._limit = limit
        self.entries: list[dict[str, Any]] = []
        self.truncated = False

    def into(self, folder: str, prefix: str, depth: int) -> None:
        for name in sorted(_names(folder)):
            if len(self.entries) >= self._limit:
                self.truncated = True
                return
            with contextlib.suppress(FileNotFoundError):  # removed since
                self._add(folder, prefix, name, depth)

    def _add(self, folder: str, prefix: str, name: str, depth: int) -> None:
        path = os.path.join(folder, name)
        status = os.lstat(path)
        kind = kind_of(status.st_mode)
        entry: dict[str, Any] = {"path": printable(prefix + name), "kind": kind}
        entry |= {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        self.entries.append(entry)
        if kind != "directory":
            return
        ignored = any(fnmatch.fnmatchcase(name, pattern) for pattern in self._ignore)
        if ignored or depth <= 1 or not os.access(path, os.R_OK | os.X_OK):
            entry["children"] = _count(path)
        else:
            self.into(path, f"{prefix}{name}/", depth - 1)


def _names(folder: str) -> list[str]:
    with os.scandir(folder) as items:
        return [item.name for item, _ in zip(items, range(MAX_SCANNED))]  # noqa: B905 - strict= is Python 3.10


def _count(folder: str) -> int:
    try:
        return len(_names(folder))
    except OSError:
        return 0
