"""What a remote provider must offer: machines that run a script, take and give files, and live on without us.

All else of a sandbox is built on it, once for every provider (remote.py, helper.py).
"""

import asyncio
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, Self

from shared.install import Install
from workflow.sandbox.base import Endpoint, SandboxRefused
from workflow.sandbox.ways import Way

THREAD_LABEL = "trunkline-thread"
INSTALL_LABEL = "trunkline-install"
REDIS_LABEL = "trunkline-redis"
MAX_PRINTED = 16 * 1024 * 1024
"""Characters that a script may print: above any answer of our program."""


class MachineError(Exception):
    """The family of what a machine raises. Its text is for the log, and ends in what a SandboxError tells."""


class MachineGone(MachineError):
    """It was killed, or has expired: its files and processes are no more."""


class MachineStopped(MachineError):
    """It is there but does not run: `connect` makes it run again."""


class MachineUnreachable(MachineError):
    """No answer. What was asked may have been done."""


@dataclass(frozen=True, slots=True)
class Ran:
    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Found:
    """`created_at` in seconds since 1970, by the provider's clock. `failed`: it never runs again; remove it.

    `redis`: the name of the Redis that knows its thread.
    """

    machine_id: str
    thread_id: str
    created_at: float
    redis: str
    failed: bool = False

    @classmethod
    def labelled(cls, machine_id: str, labels: Mapping[str, str], created_at: float, *, failed: bool = False) -> Self:
        return cls(machine_id, labels.get(THREAD_LABEL, ""), created_at, labels.get(REDIS_LABEL, ""), failed)


def labels_of(install: Install, thread_id: str) -> dict[str, str]:
    """Of a new machine."""
    return {**labels_to_find(install, thread_id), REDIS_LABEL: install.redis}


def labels_to_find(install: Install, thread_id: str | None) -> dict[str, str]:
    """Of a thread's machines, or of all of ours."""
    return {INSTALL_LABEL: install.name} | ({THREAD_LABEL: thread_id} if thread_id else {})


@contextmanager
def cancellation_kept() -> Iterator[None]:
    """For SDKs that answer a cancellation with an error of their own, or not at all: it becomes CancelledError again.

    asyncio.wait_for loses one that comes at the same time as its result, up to Python 3.11.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


class Allowance:
    """For what comes out of a machine: an agent could send without end, into the memory of all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0

    def take(self, piece: bytes | str) -> None:
        """Raises SandboxRefused where that is too much."""
        self._taken += len(piece)
        if self._taken > self._limit:
            raise SandboxRefused(f"the sandbox sends more than the {self._limit} bytes that were to come")

    def of(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.take(piece)
            yield piece


async def collected(pieces: AsyncIterable[bytes], limit: int) -> bytes:
    """Raises SandboxRefused for more than `limit` bytes."""
    content, allowance = bytearray(), Allowance(limit)
    async for piece in pieces:
        allowance.take(piece)
        content += piece
    return bytes(content)


class Machine(Protocol):
    """A running machine. Every method may raise MachineError and SandboxUnavailable (the key, a rate limit)."""

    @property
    def machine_id(self) -> str: ...

    async def run(self, script: str, seconds: float) -> Ran:
        """A bash script, to its end. Once `seconds` are over: MachineUnreachable, by a clock of our own.

        Raises SandboxRefused where it prints more than MAX_PRINTED.
        """

    async def put(self, path: str, content: bytes) -> None:
        """Writes a file in a folder that is there."""

    async def get(self, path: str, limit: int) -> bytes:
        """The content of a file that is there. Raises SandboxRefused where it has more than `limit` bytes."""

    async def expose(self, port: int, seconds: int) -> Endpoint | None:
        """The provider's own address of the port; None where it has none."""

    async def way(self, port: int) -> Way:
        """How the port is reached from here, for a minute at least."""

    async def extend(self) -> None:
        """It shall live on for a while, even if nobody asks anything of it."""


class Cloud(Protocol):
    """Where machines are made. Every method may raise SandboxUnavailable and MachineUnreachable.

    A machine bears its thread and our installation as labels, so that it is found whatever we forget.
    """

    @property
    def name(self) -> str:
        """Of the provider, as the settings have it."""

    @property
    def image_hint(self) -> str:
        """Which setting names the image, and what must be in it."""

    @property
    def extend_seconds(self) -> float:
        """Pause between two calls of `extend` that keeps a machine alive."""

    async def create(self, thread_id: str, instead_of: str | None) -> Machine:
        """A new one. The same arguments at the same time give one machine, where the provider can do that."""

    async def connect(self, machine_id: str) -> Machine:
        """Makes it run where it does not. Raises MachineGone."""

    async def find(self, thread_id: str | None = None) -> Sequence[Found]:
        """Those of the thread, or all of our installation, running or not."""

    async def remove(self, machine_id: str) -> None:
        """One that is gone already is no error."""

    async def close(self) -> None: ...
