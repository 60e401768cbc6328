"""Real, isolated machines for the doubles of sandbox services: local bubblewrap sandboxes with inner.py in them."""

import asyncio
import json
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[3]
MACHINE_UID = 64321
STOP_SECONDS = 20
PATH = "/usr/local/bin:/usr/bin:/bin"
JSON, OUT, ERR, DATA, END = b"j", b"o", b"e", b"d", b"x"
_HEAD = struct.Struct(">cI")
_MAX_ANSWER = 64 * 1024


class MachineError(Exception):
    """An operation failed inside; `code` is the name of an errno: ENOENT, EEXIST, ESRCH (no such process)."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class MachineGone(Exception):
    """The machine ended, before or during the operation."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What there is at a path; a link's other fields tell of what it points to."""

    name: str
    path: str
    directory: bool
    regular: bool
    size: int
    mode: int
    permissions: str
    mtime: float
    link: str | None


class Channel:
    """One operation inside a machine: frames of (kind, payload)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Raises MachineGone."""
        try:
            self.writer.write(_HEAD.pack(kind, len(payload)) + payload)
            await self.writer.drain()
        except ConnectionError as error:
            raise MachineGone from error

    async def receive(self) -> tuple[bytes, bytes]:
        """Raises MachineGone."""
        try:
            kind, length = _HEAD.unpack(await self.reader.readexactly(_HEAD.size))
            return kind, await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise MachineGone from error

    async def answer(self) -> dict[str, Any]:
        """Raises MachineError, MachineGone."""
        _, payload = await self.receive()
        answer: dict[str, Any] = json.loads(payload)
        if "error" in answer:
            raise MachineError(answer["error"], answer["text"])
        return answer

    def close(self) -> None:
        self.writer.close()


class Running:
    """Follows a process. Leaving off (`close`) does not end it."""

    def __init__(self, pid: int, channel: Channel) -> None:
        self.pid = pid
        self.code: int | None = None
        self._channel = channel

    async def output(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """(OUT or ERR, bytes) as they come, until the process has ended: then `code` is as in subprocess.

        Raises MachineGone.
        """
        try:
            while (frame := await self._channel.receive())[0] != JSON:
                yield frame
            self.code = json.loads(frame[1])["code"]
        finally:
            self.close()

    def close(self) -> None:
        self._channel.close()


class Machine:
    """`home` is its user's. Every method raises MachineError and MachineGone."""

    def __init__(self, name: str, control: socket.socket, home: str, user: str) -> None:
        self.name = name
        self.home = home
        self.user = user
        self._control = control

    async def open(self, op: str, **fields: Any) -> Channel:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"c"], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise MachineGone from error
        channel = Channel(*await asyncio.open_connection(sock=ours))
        await channel.send(JSON, json.dumps({"op": op, **fields}).encode())
        return channel

    async def begin(self, op: str, **fields: Any) -> tuple[Channel, dict[str, Any]]:
        """An operation that goes on after its first answer."""
        channel = await self.open(op, **fields)
        try:
            return channel, await channel.answer()
        except (MachineError, MachineGone):
            channel.close()
            raise

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        channel = await self.open(op, **fields)
        try:
            return await channel.answer()
        finally:
            channel.close()

    async def spawn(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        stdin: bool = False,
        split: bool = True,
        session: bool = True,
        tag: str | None = None,
        drain_seconds: float | None = 0.1,
    ) -> Running:
        """`split` False: stderr goes where stdout goes. `env` comes on top of what a login of its user has.

        `drain_seconds`: how long output is waited for that others still hold open after its end; None: for ever.
        """
        login = {"PATH": PATH, "HOME": self.home, "USER": self.user, "LOGNAME": self.user, "LANG": "C.UTF-8"}
        fields = {"args": list(args), "env": {**login, **env}, "cwd": cwd, "stdin": stdin, "split": split}
        return await self._run("spawn", **fields, session=session, tag=tag, drain=drain_seconds)

    async def follow(self, pid: int) -> Running:
        """What a process writes from now on."""
        return await self._run("follow", pid=pid)

    async def _run(self, op: str, **fields: Any) -> Running:
        channel, answer = await self.begin(op, **fields)
        return Running(answer["pid"], channel)

    async def signal(self, pid: int, number: int, *, group: bool) -> None:
        await self.ask("send_signal", pid=pid, signal=number, group=group)

    async def feed(self, pid: int, data: bytes, *, close: bool = False) -> None:
        channel = await self.open("feed", pid=pid, close=close)
        try:
            await channel.send(DATA, data)
            await channel.send(END)
            await channel.answer()
        finally:
            channel.close()

    async def info(self, path: str) -> Entry:
        return Entry(**(await self.ask("info", path=path))["entry"])

    async def list(self, path: str, depth: int = 1) -> list[Entry]:
        return [Entry(**entry) for entry in (await self.ask("listing", path=path, depth=depth))["entries"]]

    async def read(self, path: str) -> AsyncIterator[bytes]:
        channel, _ = await self.begin("read", path=path)
        try:
            while (frame := await channel.receive())[0] == DATA:
                yield frame[1]
        finally:
            channel.close()

    async def write(self, path: str, pieces: AsyncIterator[bytes]) -> Entry:
        channel = await self.open("write", path=path)
        try:
            async for piece in pieces:
                await channel.send(DATA, piece)
            await channel.send(END)
            return Entry(**(await channel.answer())["entry"])
        finally:
            channel.close()

    def absolute(self, path: str) -> str:
        """As both services read a path: `~` and relative ones begin at the home."""
        if path.startswith("~"):
            path = self.home + path[1:]
        return str(Path(self.home, path))

    def leave(self) -> None:
        self._control.close()


async def dial(machine: Machine, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to 127.0.0.1:port inside. Raises MachineError (ECONNREFUSED), MachineGone."""
    channel, _ = await machine.begin("dial", port=port)
    return channel.reader, channel.writer


class Machines:
    """`async with Machines(home="/home/user", user="user") as machines:`; all are gone when it ends.

    `packages` is /opt/templates in each: what code templates depend on.
    """

    def __init__(self, home: str, user: str, packages: Path | None = None) -> None:
        self._home = home
        self._user = user
        self._packages = packages
        self._turn = asyncio.Lock()
        self._alive: dict[str, Machine] = {}

    async def __aenter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="trunkline-machines-"))
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            arguments = [str(theirs.fileno()), str(self._folder), str(MACHINE_UID), self._home, self._user]
            arguments += [str(self._packages)] if self._packages else []
            command = [sys.executable, "-m", "tests.support.machines.keeper", *arguments]
            self._keeper = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        try:
            await self._answer()
        except RuntimeError:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for machine in self._alive.values():
            machine.leave()
        self._requests.close()
        await asyncio.to_thread(self._keeper.wait, STOP_SECONDS)
        shutil.rmtree(self._folder)

    async def start(self, name: str) -> Machine:
        async with self._turn:
            control = await self._ask("start", name)
        assert control
        self._alive[name] = machine = Machine(name, control, self._home, self._user)
        return machine

    async def stop(self, machine: Machine) -> None:
        """Ends its processes and drops its files."""
        del self._alive[machine.name]
        async with self._turn:
            await self._ask("stop", machine.name)
        machine.leave()
        await asyncio.to_thread(shutil.rmtree, self._folder / machine.name)

    async def _ask(self, op: str, name: str) -> socket.socket | None:
        self._requests.send(json.dumps({"op": op, "name": name}).encode())
        return await self._answer()

    async def _answer(self) -> socket.socket | None:
        data, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, self._requests, _MAX_ANSWER, 1)
        answer = json.loads(data or b'{"error": "the keeper has ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return socket.socket(fileno=descriptors[0]) if descriptors else None
