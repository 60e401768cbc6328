"""The data folder: who may use it, the first key, and what a running stack writes down in it."""

import fcntl
import json
import os
import secrets
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from scripts.stack.errors import StackError

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KEY_PREFIX = "tl_local_"
KEY_CHARS = 30  # 178 bits
MARK = "TRUNKLINE__DATA"  # in the environment of every process of a stack, so that a left-over one is known by it


class DataFolder:
    """Made when it is not there, for its owner only."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.run = self.path / "run"
        self.logs = self.path / "logs"
        for folder in (self.path, self.run, self.logs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Only one stack at a time may hold the folder. Raises StackError that names the one that does."""
        with (self.run / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(self._who_holds_it(lock)) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            self._end_leftovers()
            try:
                yield
            finally:
                lock.truncate(0)

    def is_held(self) -> bool:
        """Whether a stack is starting, running or stopping here; what a killed one wrote down says nothing."""
        with (self.run / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def key(self) -> str:
        return self._secret("key", new_key)

    def valkey_password(self) -> str:
        return self._secret("valkey-password", lambda: secrets.token_urlsafe(32))

    def pid_file(self, service: str) -> Path:
        return self.run / f"{service}.pid"

    def announce(self, url: str) -> None:
        """Lets the command line find the gateway."""
        write_private(self.run / "gateway.json", json.dumps({"url": url, "pid": os.getpid()}))

    def retract(self) -> None:
        (self.run / "gateway.json").unlink(missing_ok=True)

    def url(self) -> str | None:
        try:
            return str(json.loads((self.run / "gateway.json").read_text())["url"])
        except FileNotFoundError:
            return None

    def _secret(self, name: str, make: Callable[[], str]) -> str:
        file = self.path / name
        if not file.exists():
            write_private(file, make() + "\n")
        return file.read_text().strip()

    def _who_holds_it(self, lock: IO[str]) -> str:
        lock.seek(0)
        pid = lock.read().strip() or "unknown"
        return (
            f"Trunkline runs already on the data folder {self.path} (process {pid}, {self.url() or 'still starting'}). "
            f"Stop it with Ctrl-C there or `kill {pid}`, or give this one a folder of its own with --data."
        )

    def _end_leftovers(self) -> None:
        """A supervisor that was killed takes its processes along, but Valkey may still be writing its last lines."""
        for file in self.run.glob("*.pid"):
            pid = int(file.read_text() or 0)
            if self._is_ours(pid) and not _gone(pid, seconds=10):
                os.kill(pid, signal.SIGKILL)
                _gone(pid, seconds=5)
            file.unlink()
        self.retract()

    def _is_ours(self, pid: int) -> bool:
        """Not another process that was given the number since."""
        try:
            return f"{MARK}={self.path}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False


def new_key() -> str:
    """As GitHub forms its tokens: prefix, random characters, and a checksum by which scanners tell it from chance."""
    random = "".join(secrets.choice(BASE62) for _ in range(KEY_CHARS))
    return f"{KEY_PREFIX}{random}{_base62(zlib.crc32(random.encode()))}"


def write_private(file: Path, text: str) -> None:
    """Whole or not at all, readable by its owner only."""
    new = file.with_name(f".{file.name}.new")
    with open(new, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
        stream.write(text)
    new.rename(file)


def _base62(number: int, length: int = 6) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(BASE62[digit])
    return "".join(reversed(digits))


def _gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
