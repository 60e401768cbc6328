"""Daytona's sessions: one shell each, its commands one after the other, all output kept and streamed.

Each command is fed to the shell with a mark behind it on both of its outputs, which tells where the output of one
command ends and that of the next begins.
"""

import asyncio
import contextlib
import re
import secrets
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.support.machines.machine import ERR, OUT, Machine, MachineError, MachineGone, Running

MARK = re.compile(rb"\0([0-9a-f]+) (\d+)\0")


@dataclass(slots=True)
class Command:
    id: str
    text: str
    log: list[tuple[bytes, bytes]] = field(default_factory=list)
    exit_code: int | None = None
    ended: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def output(self, kind: bytes | None = None) -> str:
        return b"".join(data for each, data in self.log if kind in (None, each)).decode(errors="replace")

    async def follow(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """Everything from the start, until it has ended."""
        seen = 0
        while True:
            async with self.changed:
                while len(self.log) == seen and not self.ended:
                    await self.changed.wait()
            new = self.log[seen:]
            for item in new:
                yield item
            seen += len(new)
            if self.ended and seen == len(self.log):
                return

    async def wait(self) -> None:
        async for _ in self.follow():
            pass


class Session:
    """`ended` once its shell has: an `exit` in a command does that."""

    def __init__(self, machine: Machine, shell: Running) -> None:
        self.commands: dict[str, Command] = {}
        self.ended = False
        self._machine = machine
        self._shell = shell
        self._marks: dict[bytes, set[str]] = {OUT: set(), ERR: set()}
        self._partial = {OUT: b"", ERR: b""}
        self._reading = asyncio.create_task(self._read())

    async def execute(self, text: str) -> Command:
        """Raises MachineGone."""
        command = Command(secrets.token_hex(8), text)
        self.commands[command.id] = command
        mark = f"printf '\\000{command.id} %d\\000' $__code"
        script = f"{{ {text}\n}} </dev/null; __code=$?; {mark}; {mark} >&2\n"
        await self._machine.feed(self._shell.pid, script.encode())
        return command

    async def delete(self) -> None:
        """Ends its shell and what that has started."""
        if not self.ended:
            with contextlib.suppress(MachineError, MachineGone):
                await self._machine.signal(self._shell.pid, signal.SIGKILL, group=True)
        await self._reading

    async def _read(self) -> None:
        try:
            async for kind, data in self._shell.output():
                await self._take(kind, self._partial[kind] + data)
        except MachineGone:
            pass
        self._shell.close()
        self.ended = True
        for command in self.commands.values():
            if not command.ended:
                await self._end(command, self._shell.code if self._shell.code is not None else 137)

    async def _take(self, kind: bytes, data: bytes) -> None:
        while mark := MARK.search(data):
            await self._note(kind, data[: mark.start()])
            command = self.commands[mark[1].decode()]
            self._marks[kind].add(command.id)
            if command.id in self._marks[OUT] & self._marks[ERR]:
                await self._end(command, int(mark[2]))
            data = data[mark.end() :]
        cut = data.find(b"\0")  # the beginning of a mark, perhaps; a command's own zero waits for what comes next
        end = len(data) if cut < 0 or len(data) - cut > 64 else cut
        await self._note(kind, data[:end])
        self._partial[kind] = data[end:]

    async def _note(self, kind: bytes, data: bytes) -> None:
        if not data:
            return
        command = next(each for each in self.commands.values() if each.id not in self._marks[kind])
        async with command.changed:
            command.log.append((kind, data))
            command.changed.notify_all()

    async def _end(self, command: Command, code: int) -> None:
        async with command.changed:
            command.exit_code = code if code >= 0 else 128 - code
            command.ended = True
            command.changed.notify_all()


class Sessions:
    """Those of one sandbox, by the ids that clients gave them."""

    def __init__(self) -> None:
        self.all: dict[str, Session] = {}

    async def create(self, session_id: str, machine: Machine, env: dict[str, str]) -> None:
        shell = await machine.spawn(["/bin/bash"], env=env, cwd=machine.home, stdin=True)
        self.all[session_id] = Session(machine, shell)

    async def delete(self, session_id: str) -> None:
        await self.all.pop(session_id).delete()

    async def drop(self) -> None:
        """All are gone with the processes of their sandbox."""
        for session_id in list(self.all):
            await self.delete(session_id)
