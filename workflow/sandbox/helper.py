"""Our program in a remote machine (sandboxd_remote.py): put there once, and then asked by a script for each request."""

import base64
import hashlib
import json
import re
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from shared.types import JSON
from workflow.sandbox import wire
from workflow.sandbox.base import (
    MAX_READ_BYTES,
    WORKSPACE,
    SandboxFenced,
    SandboxLost,
    SandboxRefused,
    SandboxUnavailable,
)
from workflow.sandbox.bwrap import build_archive
from workflow.sandbox.inside import raise_refusal
from workflow.sandbox.machine import Machine, MachineError, MachineUnreachable
from workflow.sandbox.sandboxd_commands import TELL_FOLDER
from workflow.sandbox.sandboxd_supervisor import SHELL_START

ANSWER_SECONDS = 60.0
NONSENSE = "the sandbox gave an answer that makes no sense"
MAX_ARGUMENT = 60_000  # characters; Linux takes 128 KiB, and some SDKs wrap it again
_SHELL_START = f"unset BASH_ENV\n{TELL_FOLDER}"
_SETUP = """\
folder="${{HOME:-/tmp}}/.trunkline"
if ! command -v python3 >/dev/null || ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))'; then
  printf '\\n%s\\n' {mark}python; exit 0
fi
if [ ! -w {workspace} ]; then
  {{ sudo -n mkdir -p {workspace} && sudo -n chown "$(id -u):$(id -g)" {workspace}; }} >/dev/null 2>&1
fi
if [ ! -w {workspace} ]; then printf '\\n%s\\n' {mark}workspace; exit 0; fi
mkdir -p -m 700 "$folder" || exit 1
printf %s {start} | base64 -d >"$folder/{start_name}"
printf '\\n%s%s\\n' {mark} "$folder"
"""


@dataclass(frozen=True, slots=True)
class Hello:
    """Of a machine: its `life` is another one whenever processes were lost; `blank` as base.Packable has it."""

    life: str
    blank: bool


class HelperMissing(MachineError):
    """The machine runs, but our program in it does not: somebody removed it."""


@cache
def _archive() -> tuple[str, bytes]:
    content = build_archive()
    return f"helper-{hashlib.sha256(content).hexdigest()[:12]}.pyz", content


class Helper:
    """Of one machine."""

    def __init__(self, machine: Machine, folder: str) -> None:
        self.machine = machine
        self._folder = folder
        self._program = shlex.join(["python3", "-I", "-S", f"{folder}/{_archive()[0]}", "remote", folder])

    async def ask(
        self, op: str, fields: Mapping[str, Any], data: bytes = b"", seconds: float = ANSWER_SECONDS
    ) -> tuple[JSON, bytes]:
        """The answer, and the bytes of a file where it has some. Raises MachineError, SandboxError."""
        mark = secrets.token_hex(12)
        request = wire.encode({"op": op, "mark": mark, **fields}) + b"\n" + data
        argument = base64.b64encode(request).decode()
        if len(argument) > MAX_ARGUMENT:
            argument = f"@{self._folder}/inbox/{mark}"
            await self.machine.put(argument[1:], request)
        ran = await self.machine.run(f"exec {self._program} {shlex.quote(argument)}", seconds)
        told = marked_line(ran.stdout, mark)
        if told is None:
            told_of = f"exit code {ran.exit_code}: {ran.stderr.strip()[-500:]}"
            missing = ran.exit_code in (2, 127)  # Python's for a script that is not there; the shell's for no Python
            raise (HelperMissing if missing else MachineUnreachable)(f"the sandbox gave no answer ({told_of})")
        answer = _parsed(told)
        _raise_error(answer)
        return answer, await self._content(answer)

    async def put_part(self, name: str, number: int, content: bytes) -> None:
        """Of what goes in by the transfer of that name. Raises MachineError, SandboxError."""
        await self.machine.put(f"{self._folder}/parts/{name}.in.{number}", content)

    async def get_part(self, name: str, number: int, size: int) -> bytes:
        """Of what comes out. Raises MachineError, SandboxError."""
        return await self.machine.get(f"{self._folder}/parts/{name}.out.{number}", size)

    async def _content(self, answer: JSON) -> bytes:
        if "content" in answer:
            try:
                return base64.b64decode(str(answer["content"]))
            except ValueError as error:
                raise SandboxRefused(NONSENSE) from error
        return await self._fetched(answer["file"], answer.get("length")) if "file" in answer else b""

    async def _fetched(self, path: Any, length: Any) -> bytes:
        """What our program has put into its outbox. Another one, in its place, may name anything."""
        ours = re.compile(rf"{re.escape(self._folder)}/outbox/[0-9a-f]{{16}}")
        if not (isinstance(path, str) and ours.fullmatch(path)):
            raise SandboxRefused(NONSENSE)
        if not (isinstance(length, int) and 0 <= length <= MAX_READ_BYTES):
            raise SandboxRefused(NONSENSE)
        return await self.machine.get(path, length)


async def open_helper(machine: Machine, known: bool, image_hint: str) -> tuple[Helper, Hello]:
    """Our program in a machine, put there if need be.

    `known`: the thread used a machine before. Raises MachineError; SandboxUnavailable where the image will not do.
    """
    folder = await _prepare(machine, image_hint)
    helper = Helper(machine, folder)
    try:
        answer, _ = await helper.ask("hello", {"known": known})
    except HelperMissing:
        await _put_program(machine, folder)
        answer, _ = await helper.ask("hello", {"known": known})
    return helper, Hello(str(answer.get("life"))[:64], answer.get("blank") is True)


async def _prepare(machine: Machine, image_hint: str) -> str:
    """The folder of our program."""
    mark = secrets.token_hex(12)
    start = base64.b64encode(_SHELL_START.encode()).decode()
    script = _SETUP.format(mark=mark, workspace=WORKSPACE, start=start, start_name=SHELL_START)
    ran = await machine.run(script, ANSWER_SECONDS)
    match marked_line(ran.stdout, mark):
        case None:
            raise MachineUnreachable(f"it could not be set up (exit code {ran.exit_code}: {ran.stderr[-500:]})")
        case "python":
            raise SandboxUnavailable(f"The sandbox's image has no python3 of version 3.9 or later. {image_hint}")
        case "workspace":
            raise SandboxUnavailable(f"The sandbox's user can neither write {WORKSPACE} nor make it. {image_hint}")
        case folder:
            return folder


async def _put_program(machine: Machine, folder: str) -> None:
    name, content = _archive()
    temporary = f"{folder}/{secrets.token_hex(4)}.new"
    await machine.put(temporary, content)
    ran = await machine.run(f"mv -f {shlex.quote(temporary)} {shlex.quote(f'{folder}/{name}')}", ANSWER_SECONDS)
    if ran.exit_code != 0:
        raise MachineUnreachable(f"our program could not be put into the sandbox ({ran.stderr.strip()[-500:]})")


def marked_line(text: str, mark: str) -> str | None:
    return next((line[len(mark) :].rstrip("\r") for line in text.split("\n") if line.startswith(mark)), None)


def _parsed(text: str) -> JSON:
    """What comes out of a machine is untrusted."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SandboxRefused(NONSENSE) from error
    if not isinstance(answer, dict):
        raise SandboxRefused(NONSENSE)
    return answer


def _raise_error(answer: JSON) -> None:
    text = str(answer.get("text"))[:8192]
    match answer.get("error"):
        case "fenced":
            raise SandboxFenced(text)
        case "lost":
            raise SandboxLost(text)
        case "refused":
            raise SandboxRefused(text)
        case _:
            raise_refusal(answer)
