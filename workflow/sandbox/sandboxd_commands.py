"""The commands of sandboxd: starting one, and ending all the processes it became.

Runs inside the sandbox: standard library only, nothing newer than Python 3.9.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from workflow.sandbox.sandboxd_files import printable

TYPE_CHECKING = False  # importing typing would cost every cold start 4 ms
if TYPE_CHECKING:
    from typing import Protocol

    class Marked(Protocol):
        """What tells a command's processes: its shell, and the variable that all of them inherit."""

        @property
        def pid(self) -> int: ...
        @property
        def mark(self) -> str: ...


CWD_FD = 50  # where a command's shell writes the folder it ends in, see SHELL_START; below any sensible open_files
SHELL_START = "/run/sandboxd/start.sh"
TELL_FOLDER = f"""trap 'builtin cd -P . 2>/dev/null && builtin printf "%s\\0" "$PWD" >&{CWD_FD}' EXIT\n"""
PIPE_BYTES = 64 * 1024
DEFAULT_SIGNALS = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT]  # Python ignores some, and a child would inherit that


class Command:
    """A command, from its start until its output has ended.

    One pipe takes stdout and stderr, so that their order is kept. Closing the descriptors is the owner's task. Raises
    OSError when it cannot be started.
    """

    def __init__(self, text: str, cwd: str, env: dict[str, str], shell_start: str = SHELL_START) -> None:
        self._shell_start = shell_start
        self.mark = f"SANDBOX_COMMAND={os.urandom(9).hex()}"
        self.output, write_end = os.pipe()
        self._cwd, cwd_end = os.pipe()
        os.set_blocking(self.output, False)
        os.set_blocking(self._cwd, False)
        try:
            self.pid = self._spawn(text, cwd, env, write_end, cwd_end)
        except OSError:
            os.close(self.output)
            os.close(self._cwd)
            raise
        finally:
            os.close(write_end)
            os.close(cwd_end)
        self.exit = os.pidfd_open(self.pid)
        self.ended = self.last_output = 0.0

    def _spawn(self, text: str, cwd: str, env: dict[str, str], output: int, cwd_end: int) -> int:
        name, _, value = self.mark.partition("=")
        try:
            os.chdir(cwd)  # posix_spawn takes no folder, and this process has no other thread
            return os.posix_spawn(
                "/bin/bash",
                ["bash", "-c", text],
                {**os.environ, **env, "BASH_ENV": self._shell_start, name: value},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, output, 1),
                    (os.POSIX_SPAWN_DUP2, output, 2),
                    (os.POSIX_SPAWN_DUP2, cwd_end, CWD_FD),
                ],
                setsid=True,
                setsigdef=DEFAULT_SIGNALS,
            )
        finally:
            os.chdir("/")

    def reap(self) -> int:
        """To be called once `exit` is readable. Returns the exit code as a shell gives it: 128 + n after signal n."""
        _, status = os.waitpid(self.pid, 0)
        self.ended = self.last_output = time.monotonic()
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def final_cwd(self) -> str | None:
        """The folder that the shell ended in, if it said so. Closes the descriptor."""
        try:
            told = os.read(self._cwd, PIPE_BYTES).split(b"\0")
        except BlockingIOError:
            return None
        finally:
            os.close(self._cwd)
        folder = printable(os.fsdecode(told[-2])) if len(told) > 1 else ""
        return folder if folder.startswith("/") and os.path.isdir(folder) else None


class Ending:
    """Ends a command's processes: SIGTERM, then SIGKILL once `grace` seconds are over, until none is left."""

    def __init__(self, request: int, command: Marked, grace: float) -> None:
        self.request = request
        self._command = command
        self._deadline = time.monotonic() + grace
        send_signals(family(command), signal.SIGTERM, signal.SIGCONT)

    def over(self) -> bool:
        """Whether none is left. To be asked until it is so: it is here that they get their SIGKILL."""
        alive = family(self._command)
        if alive and time.monotonic() >= self._deadline:
            send_signals(alive, signal.SIGKILL)
        return not alive


def send_signals(pids: list[int], *signals: signal.Signals) -> None:
    for pid in pids:
        for number in signals:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def family(command: Marked) -> list[int]:
    """The living processes of a command: its session, its descendants, and daemons, which still bear its mark."""
    table = _processes()
    mark = command.mark.encode()
    members = {command.pid} & table.keys()
    members |= {
        pid for pid, (_, group, session, _) in table.items() if command.pid in (group, session) or _bears(pid, mark)
    }
    grown = True
    while grown:
        children = {pid for pid, (parent, *_) in table.items() if parent in members}
        grown = not children <= members
        members |= children
    return [pid for pid in members if table[pid][3] != "Z"]


def _processes() -> dict[int, tuple[int, int, int, str]]:
    """pid -> (parent, group, session, state) of every process of the sandbox."""
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                state, parent, group, session = file.read().rpartition(b") ")[2].split()[:4]
                table[int(name)] = (int(parent), int(group), int(session), state.decode())
    return table


def _bears(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False
