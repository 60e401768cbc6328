"""One running sandbox: the bubblewrap process, the link to the sandboxd in it, its control group."""

import asyncio
import os
import signal
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from shared.config import SandboxSettings
from shared.types import JSON
from workflow.sandbox import bwrap
from workflow.sandbox.base import (
    FileChanged,
    FileError,
    FileKind,
    FileMissing,
    NotListening,
    NotRegular,
    SandboxError,
    SandboxUnavailable,
)
from workflow.sandbox.cgroups import Group, Groups
from workflow.sandbox.egress import PROXY_PORT, Egress, Reach, network_of
from workflow.sandbox.handed import Channel, Handed
from workflow.sandbox.limits import Limits
from workflow.sandbox.link import Link, LinkClosed
from workflow.sandbox.sandboxd_files import printable
from workflow.sandbox.usage import descendants, kill_below

ANSWER_SECONDS = 30.0
ENDING_SECONDS = 5.0  # beyond the grace of SIGTERM, for processes that are slow to die
START_SECONDS = 10.0  # a cold start takes 30 ms; this is for a machine in trouble


@dataclass(frozen=True, slots=True)
class Ground:
    """What all sandboxes of a host stand on. `groups` None: tier C. `egress` None: they reach no network."""

    settings: SandboxSettings
    profile: bwrap.Profile
    groups: Groups | None
    egress: Egress | None = None

    def limited(self, limits: Limits) -> Self:
        """For a sandbox that has less than others."""
        given = {name: value for name, value in asdict(limits).items() if value is not None}
        least = {name: min(value, getattr(self.settings, name)) for name, value in given.items()}
        settings = self.settings.model_copy(update=least)
        return replace(self, settings=settings, profile=replace(self.profile, memory_bytes=settings.memory_bytes))


class Inside:
    """A sandbox's processes, from start to end. Its files are not its business: they outlive it."""

    def __init__(self, started: bwrap.Started, group: Group | None) -> None:
        self._started = started
        self._group = group
        self._watchdog_kills = 0
        self._init: int | None = None
        self._proxying: asyncio.Task[None] | None = None
        self._channel = Channel(started.channel)
        self.link = Link(started.link)

    @property
    def running(self) -> bool:
        return not self.link.closed.is_set()

    def pids(self) -> list[int]:
        """Of every process in it, as the host counts; the first two are its pid 1 and sandboxd."""
        return descendants(self._started.process.pid)

    def memory_kills(self) -> int:
        """How many of its processes were killed for want of memory, so far."""
        return self._watchdog_kills + (self._group.kills() if self._group else 0)

    def kill_for_memory(self, pid: int) -> None:
        kill_below(self._started.process.pid, pid)
        self._watchdog_kills += 1

    async def ask(self, message: JSON, data: bytes = b"", seconds: float = ANSWER_SECONDS) -> tuple[JSON, bytes]:
        """Raises LinkClosed; FileError as sandboxd refuses. A sandboxd that does not answer is ended."""
        try:
            async with asyncio.timeout(seconds):
                answer, received = await self.link.ask(message, data)
        except TimeoutError as error:  # an agent can stop it, by `kill -STOP -1` for instance
            self.kill()
            raise LinkClosed(f"the sandbox did not answer within {seconds:g} s") from error
        raise_refusal(answer)
        return answer, received

    async def end(self, request: int, grace: float) -> None:
        """Ends the processes of a command; returns when they are gone. Raises LinkClosed."""
        await self.ask({"op": "end", "run": request, "grace": grace}, seconds=grace + ENDING_SECONDS)

    async def dial(self, port: int) -> Handed:
        """A connection to a port inside. Raises LinkClosed, NotListening."""
        handed, answer = await self.handed({"op": "dial", "port": port})
        if handed is None or answer.get("refused"):
            raise NotListening(port, [number for number in answer.get("ports", ()) if isinstance(number, int)])
        if not handed.leads_to(port):
            handed.close()
            raise LinkClosed("what the sandbox handed over is no connection to the port")
        return handed

    async def handed(self, message: JSON) -> tuple[Handed | None, JSON]:
        """The socket that sandboxd hands over before it answers, if it does, and the answer. Raises as `ask`."""
        with self._channel.expected() as token:
            answer, _ = await self.ask({**message, "token": token})
            return self._channel.take(token), answer

    async def transfer(self, request: JSON) -> Handed:
        """A socket to a program inside that moves files (sandboxd_transfer.py). Raises LinkClosed, FileError."""
        handed, _ = await self.handed({"op": "transfer", "transfer": request})
        if handed is None:
            raise LinkClosed("the sandbox handed over nothing")
        return handed

    async def accept(self) -> Handed | None:
        """The next connection to our port inside, whenever it comes. Raises LinkClosed."""
        with self._channel.expected() as token:
            await self.link.ask({"op": "accept", "token": token})
            return self._channel.take(token)

    async def lead_out(self, egress: Egress, name: str, reach: Reach) -> None:
        """From now on, connections to our port inside are served. Raises LinkClosed, FileError."""
        await self.ask({"op": "listen", "port": PROXY_PORT})
        self._proxying = asyncio.create_task(egress.serve(self.accept, name, reach))

    async def begin(self, settings: SandboxSettings) -> None:
        """Sets its limits, before anything but sandboxd runs in it. Raises LinkClosed, OSError."""
        await self.link.open()
        await self.ask({"op": "hello", "limits": _limits(settings)})
        inside = self.pids()
        if len(inside) < 2:
            raise SandboxUnavailable("the kernel does not tell a process's children (CONFIG_PROC_CHILDREN)")
        self._init = os.pidfd_open(inside[0])
        if self._group:
            self._group.admit([self._started.process.pid, *inside])
        self._started.errors.close()

    def complaint(self) -> str:
        return self._started.complaint()

    def kill(self) -> None:
        """All its processes; `ended` tells when they are gone."""
        bubblewrap = self._started.process
        if bubblewrap.returncode is not None:
            return  # its number may be another's by now
        # With its pid 1 all others end, and then bubblewrap, which reaps it. Before there is one, bubblewrap itself.
        if init := next(iter(self.pids()), None):
            kill_below(bubblewrap.pid, init)
        else:
            os.kill(bubblewrap.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """For the one who started it: ends it, and returns when nothing is left."""
        self.kill()
        await self.ended()

    async def ended(self) -> None:
        """Until every process is gone. To be called once: it is what reaps them."""
        await _exit_of(os.pidfd_open(self._started.process.pid))
        self._started.process.wait()
        if self._init is not None:
            await _exit_of(self._init)  # the kernel lets it exit only once all others in its namespace have
        self._started.errors.close()
        await self.link.close()
        self._channel.close()
        if self._proxying:
            await asyncio.wait([self._proxying])
        if self._group:
            self._group.remove()


async def start(ground: Ground, workspace: Path, name: str, reach: Reach | None = None) -> Inside:
    """Must be called in the host's main thread (see bwrap.start). Raises SandboxUnavailable.

    `reach`: what it reaches of the network, asked for each connection; unset: what the settings say.
    """
    group = None
    try:
        group = ground.groups.create(name, ground.settings.memory_bytes) if ground.groups else None
        inside = Inside(bwrap.start(ground.profile, workspace), group)
    except OSError as error:
        if group:
            group.remove()
        raise SandboxUnavailable(bwrap.explain(str(error))) from error
    try:
        async with asyncio.timeout(START_SECONDS):
            await inside.begin(ground.settings)
            if ground.egress:
                await inside.lead_out(ground.egress, name, reach or partial(network_of, ground.settings))
    except (LinkClosed, TimeoutError, OSError, SandboxError) as error:
        complaint = inside.complaint() or f"{type(error).__name__}: {error}"
        await inside.stop()
        raise SandboxUnavailable(bwrap.explain(complaint)) from error
    except asyncio.CancelledError:
        await inside.stop()
        raise
    return inside


def _limits(settings: SandboxSettings) -> JSON:
    """Hard, and inherited by every process. Not RLIMIT_AS: Node reserves more address space than any limit allows."""
    return {
        "RLIMIT_NPROC": settings.processes,
        "RLIMIT_NOFILE": settings.open_files,
        "RLIMIT_FSIZE": settings.file_bytes,
        "RLIMIT_CORE": 0,
    }


def raise_refusal(answer: JSON) -> None:
    """Raises the FileError that an answer of sandboxd stands for, if it does."""
    if "error" not in answer:
        return
    text, path = (printable(str(answer.get(name))[:8192]) for name in ("text", "path"))
    match answer["error"]:
        case "missing":
            raise FileMissing(text, path)
        case "not_regular":
            kind = answer.get("file_kind")
            raise NotRegular(text, path, FileKind(kind) if kind in list(FileKind) else FileKind.OTHER)
        case "changed":
            sha256 = answer.get("sha256")
            raise FileChanged(text, path, printable(str(sha256)[:64]) if sha256 else None)
        case _:
            raise FileError(text, path)


async def _exit_of(pidfd: int) -> None:
    """Waits for a process's end, without reaping it. Closes the descriptor."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
