"""What a remote machine was ever asked to do, in a folder of its own: keys, epochs, tasks, notes, what commands wrote.

Every request to a remote machine is a process (sandboxd_remote.py), so what they share is files, behind one lock.
Runs inside the machine: standard library only, nothing newer than Python 3.9.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil

TYPE_CHECKING = False  # importing typing would cost every request 4 ms
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    JSON = dict[str, Any]

MAX_NOTES = 64  # a note is asked for by the attempt right after a crash, so few are enough
MAX_RECORDS = 500
KEPT_BYTES = 256 * 1024 * 1024  # of what all commands wrote
SEGMENT_BYTES = 1024 * 1024
END_SEGMENTS = 5  # kept of each end of an output


class Fenced(Exception):
    """A newer attempt of the run has the machine."""


class Lost(Exception):
    """It began, and nobody knows what became of it."""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def run_of(key: str) -> str:
    return key.partition("/")[0]


def save(path: str, content: bytes) -> None:
    """Whoever reads it meanwhile sees the old content or the new."""
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as file:
        file.write(content)
    os.replace(temporary, path)


def load(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


class Ledger:
    """All methods but `record` need `locked`, unless they say otherwise."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        for name in ("begun", "commands", "epochs", "inbox", "notes", "outbox", "parts", "runs", "running", "tasks"):
            os.makedirs(os.path.join(folder, name), mode=0o700, exist_ok=True)

    def path(self, *names: str) -> str:
        return os.path.join(self.folder, *names)

    @contextlib.contextmanager
    def locked(self, name: str = "lock") -> Iterator[None]:
        """One process at a time. A child that is forked meanwhile does not hold the lock on."""
        fd = os.open(self.path(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    # --- keys and epochs

    def life(self, known: bool) -> str:
        """Another one whenever processes were lost. `known`: the caller has used this machine, or one before it."""
        lost = [record for record in self.records("running") if record.lost]
        for record in lost:
            os.unlink(self.path("running", record.name))
        told = json.loads(load(self.path("life")) or b"{}")
        if lost or not told:
            told = {"life": os.urandom(4).hex(), "lacks": told.get("lacks", known)}
            save(self.path("life"), json.dumps(told).encode())
        return str(told["life"])

    @property
    def blank(self) -> bool:
        """Whether no command or write has begun here, and nothing was brought."""
        return not (os.listdir(self.path("begun")) or os.path.exists(self.path("filled")))

    def settle(self) -> None:
        save(self.path("filled"), b"")

    def fence(self, key: str, epoch: int) -> None:
        """Remembers a run's newest epoch. Raises Fenced when this one is older."""
        run = run_of(key)
        path = self.path("epochs", digest(run))
        newest = int(load(path) or 0)
        if epoch < newest:
            raise Fenced(f"run {run} is at attempt {newest}; attempt {epoch} may no longer use its sandbox")
        if epoch > newest:
            save(path, b"%d" % epoch)

    def begin(self, key: str) -> None:
        for path in (self.path("begun", digest(key)), self.path("runs", digest(run_of(key)))):
            with open(path, "wb"):
                pass

    def begun(self, key: str) -> bool:
        return os.path.exists(self.path("begun", digest(key)))

    def forget(self, key: str) -> None:
        """It had no effect, and may begin again."""
        os.unlink(self.path("begun", digest(key)))

    def cannot_tell(self, key: str) -> bool:
        """Whether something may have begun with a key of which nobody knows more: here, or in a machine before."""
        told = json.loads(load(self.path("life")) or b"{}")
        unknown_run = not os.path.exists(self.path("runs", digest(run_of(key))))
        return self.begun(key) or (bool(told.get("lacks")) and unknown_run)

    # --- notes of writes

    def keep_note(self, key: str, note: bytes) -> None:
        save(self.path("notes", digest(key)), note)
        for path in self._by_age("notes")[:-MAX_NOTES]:
            os.unlink(path)

    def note(self, key: str) -> bytes | None:
        return load(self.path("notes", digest(key)))

    # --- commands

    def record(self, key: str) -> Record:
        return Record(self.path("commands", digest(key)))

    def records(self, folder: str = "commands") -> list[Record]:
        """Of all commands, or those that `running` names; oldest first."""
        return [Record(self.path("commands", os.path.basename(path))) for path in self._by_age(folder)]

    def task(self, task_id: str) -> Record | None:
        """None: nobody knows it. Raises Lost when its output is kept no longer."""
        name = load(self.path("tasks", task_id)) if task_id.isidentifier() else None
        if name is None:
            return None
        record = Record(self.path("commands", name.decode()))
        if not record.exists:
            raise Lost(f"{task_id} ended long ago; its output is no longer kept")
        return record

    def new_task(self, record: Record) -> str:
        """Names it as a task of the background."""
        task_id = f"bg_{len(os.listdir(self.path('tasks'))) + 1}"
        save(self.path("tasks", task_id), record.name.encode())
        return task_id

    def forget_oldest(self) -> None:
        """Of the commands that have ended: whole records beyond MAX_RECORDS, and output beyond KEPT_BYTES."""
        records = [record for record in self.records() if not os.path.exists(self.path("running", record.name))]
        excess = len(records) - MAX_RECORDS
        for record in records[: max(0, excess)]:
            shutil.rmtree(record.folder)
        total = sum(record.log.kept for record in records[max(0, excess) :])
        for record in records[max(0, excess) :]:
            if total <= KEPT_BYTES:
                break
            total -= record.log.kept
            record.log.discard()

    def _by_age(self, name: str) -> list[str]:
        found = []
        with os.scandir(self.path(name)) as items:
            for item in items:
                with contextlib.suppress(FileNotFoundError):
                    found.append((item.stat().st_mtime_ns, item.path))
        return [path for _, path in sorted(found)]


class Record:
    """One command's folder. `state` is its supervisor's, who holds `guard` locked as long as it lives."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.name = os.path.basename(folder)
        self.log = Log(os.path.join(folder, "output"))

    @property
    def exists(self) -> bool:
        return os.path.exists(self._path("state"))

    def make(self, state: JSON) -> int:
        """Its folder, with the guard of the supervisor to be: the descriptor returned."""
        os.makedirs(self.log.folder, mode=0o700)
        guard = os.open(self._path("guard"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(guard, fcntl.LOCK_EX)
        self.save(state)
        return guard

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def save(self, state: JSON) -> None:
        save(self._path("state"), json.dumps(state).encode())

    @property
    def state(self) -> JSON:
        """Raises Lost where there is none."""
        content = load(self._path("state"))
        if content is None:
            raise Lost("what became of the command is no longer known")
        state: JSON = json.loads(content)
        return state

    @property
    def supervised(self) -> bool:
        try:
            fd = os.open(self._path("guard"), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    @property
    def lost(self) -> bool:
        """Whether its supervisor died before the command had ended."""
        return not self.supervised and not (self.exists and self.state["ended"])

    def ask_to_end(self, grace: float, reason: str) -> None:
        if not os.path.exists(self._path("end")):
            save(self._path("end"), json.dumps({"grace": grace, "reason": reason}).encode())

    def asked_to_end(self) -> JSON | None:
        asked = load(self._path("end"))
        return None if asked is None else json.loads(asked)

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)


class Log:
    """What a command wrote, in files of a mebibyte each: the first ones and the newest; the middle is dropped.

    Bytes are addressed by their place in the whole output, from 0. One process appends, others read.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._place = 0

    def append(self, data: bytes) -> None:
        """Raises OSError where the disk takes no more."""
        while data:
            number, used = divmod(self._place, SEGMENT_BYTES)
            piece = data[: SEGMENT_BYTES - used]
            with open(self._segment(number), "ab", buffering=0) as file:
                written = file.write(piece)
            self._place += written
            data = data[written:]
            if used == 0 and number >= 2 * END_SEGMENTS:
                os.unlink(self._segment(number - END_SEGMENTS))

    @property
    def kept(self) -> int:
        return sum(size for _, size in self._segments())

    @property
    def total(self) -> int:
        """As far as it is kept: where the newest byte ends."""
        segments = self._segments()
        return segments[-1][0] * SEGMENT_BYTES + segments[-1][1] if segments else 0

    def read(self, offset: int, limit: int) -> tuple[bytes, int]:
        """Up to `limit` bytes from `offset` on, and where they begin: later than `offset` where bytes were dropped."""
        pieces: list[bytes] = []
        start = place = offset
        for number, size in self._segments():
            first = number * SEGMENT_BYTES
            if first + size <= place or limit <= 0:
                continue
            if first > place:
                if pieces:
                    break
                start = place = first
            piece = self._piece(number, place - first, limit)
            if not piece:
                break
            pieces.append(piece)
            place += len(piece)
            limit -= len(piece)
        return b"".join(pieces), start

    def discard(self) -> None:
        for number, _ in self._segments():
            os.unlink(self._segment(number))

    def _piece(self, number: int, offset: int, limit: int) -> bytes:
        try:
            with open(self._segment(number), "rb") as file:
                file.seek(offset)
                return file.read(limit)
        except FileNotFoundError:  # dropped since
            return b""

    def _segments(self) -> list[tuple[int, int]]:
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as items:
            for item in items:
                with contextlib.suppress(FileNotFoundError):
                    found.append((int(item.name), item.stat().st_size))
        return sorted(found)

    def _segment(self, number: int) -> str:
        return os.path.join(self.folder, str(number))
