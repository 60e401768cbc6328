"""How sandboxd writes files: one by one atomically, and several together all or none, even when it is killed.

The new files are staged beside their targets and then renamed. Between the two a journal is put into the workspace that
names them: from then on the write counts as done, and a sandbox that finds the journal when it starts finishes it.
Where one cannot be renamed after all, the journal is first made to say the way back.
Nothing is synced to the disk, so this holds for killed processes, not for a machine that loses its power.

Standard library only, nothing newer than Python 3.9.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat

from workflow.sandbox.sandboxd_files import Refused, kind_of, open_regular, refusal, sha256

TYPE_CHECKING = False  # importing typing would cost every cold start 4 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    Staged = list[tuple[str, str]]  # (new file, its target)

JOURNAL = ".unfinished-write"
MAX_JOURNAL_BYTES = 4 * 1024 * 1024
OLD = ".old"  # what a staged file's name has behind it when it is the old one, kept until all are renamed
GONE = ""  # in place of the old file where there was none


def write(files: Sequence[dict[str, Any]], content: memoryview, workspace: str) -> None:
    """Checks every file, stages all of them, and then renames all. Raises Refused; then no file was changed.

    `content` is that of all files, one after the other.
    """
    targets = [check(file) for file in files]
    _differ(files, [target for target, _ in targets])
    staged: Staged = []
    start = 0
    try:
        for file, (target, mode) in zip(files, targets):  # noqa: B905 - strict= is Python 3.10
            staged.append((stage(file["path"], target, mode, [content[start : start + file["size"]]]), target))
            start += file["size"]
        if len(staged) == 1:
            _rename(*staged[0])
        else:
            _rename_together(staged, os.path.join(workspace, JOURNAL))
    finally:
        for temporary, _ in staged:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def finish(workspace: str) -> None:
    """Finishes what a killed sandbox had begun. A file of that name that is no journal is left alone."""
    journal = os.path.join(workspace, JOURNAL)
    try:
        with open(open_regular(journal), "rb") as file:
            staged = [(str(temporary), str(target)) for temporary, target in json.loads(file.read(MAX_JOURNAL_BYTES))]
    except (Refused, OSError, ValueError, TypeError, RecursionError):
        return
    _carry_out(staged)
    _forget_old(staged)
    os.unlink(journal)


def _carry_out(staged: Staged) -> None:
    for temporary, target in staged:
        with contextlib.suppress(OSError, ValueError):  # it was done before
            if temporary == GONE:
                os.unlink(target)
            else:
                os.replace(temporary, target)


def _keep(staged: Staged, journal: str) -> None:
    try:
        with open(journal + ".new", "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(staged, file)
        os.replace(journal + ".new", journal)
    except OSError as error:
        raise refusal(error, journal) from error


def _rename_together(staged: Staged, journal: str) -> None:
    _keep(staged, journal)
    done: Staged = []
    try:
        for temporary, target in staged:
            with contextlib.suppress(FileNotFoundError):  # there is no old one
                os.link(target, temporary + OLD)
            _rename(temporary, target)
            done.append((temporary, target))
    except (OSError, Refused) as error:
        back = [(_old(temporary), target) for temporary, target in reversed(done)]
        with contextlib.suppress(Refused):  # then a kill meanwhile has the write finished
            _keep(back, journal)
        _carry_out(back)
        _forget_old(staged)
        os.unlink(journal)
        raise error if isinstance(error, Refused) else refusal(error, target) from error
    _forget_old(staged)
    os.unlink(journal)


def _old(temporary: str) -> str:
    return temporary + OLD if os.path.lexists(temporary + OLD) else GONE


def _forget_old(staged: Staged) -> None:
    for temporary, _ in staged:
        with contextlib.suppress(OSError, ValueError):
            os.unlink(temporary + OLD)


def _rename(temporary: str, target: str) -> None:
    try:
        os.replace(temporary, target)
    except OSError as error:
        raise refusal(error, target) from error


def _differ(files: Sequence[dict[str, Any]], targets: Sequence[str]) -> None:
    """Of two links to one file, the second write would undo the first."""
    seen: dict[str, str] = {}
    for file, target in zip(files, targets):  # noqa: B905
        if target in seen:
            text = f"{seen[target]} and {file['path']} are the same file: write it once"
            raise Refused("failed", text, file["path"])
        seen[target] = file["path"]


def check(file: dict[str, Any]) -> tuple[str, int]:
    """Where the file goes, and its mode. A link stays a link: what it points to is written."""
    path = file["path"]
    try:
        target = os.path.realpath(path)
        status = os.stat(target)
    except FileNotFoundError:
        status = None
    except (OSError, ValueError) as error:
        raise refusal(error, path) from error
    if status and not stat.S_ISREG(status.st_mode):
        kind = kind_of(status.st_mode)
        raise Refused("not_regular", f"{path} is a {kind}, not a regular file", path, file_kind=kind)
    _expect(file, target if status else None)
    return target, _mode(status, file["executable"])


def _expect(file: dict[str, Any], existing: str | None) -> None:
    expected = file["expect"]
    if expected is None or expected == ("absent" if existing is None else "present"):
        return
    actual = sha256(existing) if existing else None
    if actual != expected:
        text = f"{file['path']} " + ("does not exist" if existing is None else "is not as expected")
        raise Refused("changed", text, file["path"], sha256=actual)


def stage(path: str, target: str, mode: int, pieces: Iterable[bytes | memoryview]) -> str:
    """Writes a temporary file beside the target, so that renaming it is atomic. Returns its path.

    Where it cannot, or where there is an exception instead of a piece, nothing is left of it. Raises Refused.
    """
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".{os.urandom(8).hex()}.tmp")
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(folder, exist_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            stack.callback(os.unlink, temporary)
            with open(fd, "wb", buffering=0) as file:
                for piece in pieces:
                    _write_all(file, memoryview(piece))
                os.fchmod(file.fileno(), mode)
        except OSError as error:
            raise refusal(error, path) from error
        stack.pop_all()
    return temporary


def _write_all(file: Any, rest: memoryview) -> None:
    while rest:
        rest = rest[file.write(rest) :]


def _mode(status: os.stat_result | None, executable: bool | None) -> int:
    if status is None:
        return 0o755 if executable else 0o644
    mode = stat.S_IMODE(status.st_mode)
    if executable is None:
        return mode
    return mode | 0o111 if executable else mode & ~0o111
