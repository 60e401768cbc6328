"""The process beside each command of a remote machine: it outlives whoever asked for the command, and keeps its output.

Runs inside the machine: standard library only, nothing newer than Python 3.9.
"""

from __future__ import annotations

import contextlib
import os
import select
import time

from workflow.sandbox.sandboxd_commands import PIPE_BYTES, Command, Ending
from workflow.sandbox.sandboxd_files import Refused, refusal

TYPE_CHECKING = False  # importing typing would cost every request 4 ms
if TYPE_CHECKING:
    from typing import Any

    from workflow.sandbox.sandboxd_ledger import Ledger, Record

    JSON = dict[str, Any]

TICK = 0.05  # seconds between two looks at what others ask for
GRACE = 0.1  # seconds in which the children of an ended command may still add output
QUIET = 0.02  # seconds of silence that end the grace
KILL_GRACE = 3.0
SHELL_START = "start.sh"
AT_ITS_LIMIT = "no process can be started: the sandbox is at its limit, so end some background tasks first"


def spawn(ledger: Ledger, record: Record, spec: JSON, state: JSON) -> None:
    """Starts the command under a supervisor. Raises Refused when it cannot be; then no trace of it is left."""
    guard = record.make(state)
    read_end, write_end = os.pipe()
    try:
        if os.fork() == 0:
            os.close(read_end)
            _be_supervisor(ledger, record, spec, state, (guard, write_end))
        os.close(write_end)
        complaint = os.read(read_end, 4096).decode()
    finally:
        os.close(read_end)
        os.close(guard)
    if complaint:
        record.remove()
        raise _refusal(OSError(int(complaint), ""), spec["cwd"])


def _refusal(error: OSError, cwd: str) -> Refused:
    return Refused("failed", AT_ITS_LIMIT) if isinstance(error, BlockingIOError) else refusal(error, cwd)


def _be_supervisor(ledger: Ledger, record: Record, spec: JSON, state: JSON, kept: tuple[int, int]) -> None:
    """In the child: never returns."""
    try:
        os.setsid()
        _detach(kept)
        try:
            supervisor = Supervisor(ledger, record, spec, state)
        except OSError as error:
            os.write(kept[1], str(error.errno or 5).encode())
            return
        os.close(kept[1])
        supervisor.run()
        os.close(kept[0])
        supervisor.drain()
    finally:
        os._exit(0)


def _detach(kept: tuple[int, int]) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd, inheritable=False)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


class Supervisor:
    """Of one command. Raises OSError when it cannot be started."""

    def __init__(self, ledger: Ledger, record: Record, spec: JSON, state: JSON) -> None:
        self._ledger = ledger
        self._record = record
        self._spec = spec
        self._state = state
        start = ledger.path(SHELL_START)
        self._command = Command(spec["command"], spec["cwd"], spec["env"], start)
        self._ending: Ending | None = None
        self._reason: str | None = None
        self._code: int | None = None
        self._open = True
        self._update(mark=self._command.mark)

    def run(self) -> None:
        """Until the command has ended."""
        poll = select.poll()
        poll.register(self._command.output, select.POLLIN)
        poll.register(self._command.exit, select.POLLIN)
        while not self._over():
            for fd, _ in poll.poll(1000 * (QUIET if self._code is not None else TICK)):
                if fd == self._command.output and not self._pump():
                    poll.unregister(fd)
                elif fd == self._command.exit:
                    self._code = self._command.reap()
                    poll.unregister(fd)
            self._heed()
        self._finish(self._code or 0)

    def drain(self) -> None:
        """A process that outlived its command still writes, and nobody listens any more; it must not block."""
        os.set_blocking(self._command.output, True)
        while self._open and os.read(self._command.output, PIPE_BYTES):
            pass

    def _pump(self) -> bool:
        """False once nobody can write any more."""
        chunk = os.read(self._command.output, PIPE_BYTES)
        self._open = bool(chunk)
        self._command.last_output = time.monotonic()
        try:
            self._record.log.append(chunk)
        except OSError:  # the disk is full; the command must not wait for room
            self._state["unsaved"] += len(chunk)
        return self._open

    def _over(self) -> bool:
        if self._code is None or (self._ending and not self._ending.over()):
            return False
        now = time.monotonic()
        silent = now - self._command.last_output > QUIET or now - self._command.ended > GRACE
        return silent or not self._open

    def _heed(self) -> None:
        """What others ask for, and the time."""
        if self._code is None and self._ending is None:
            if asked := self._record.asked_to_end():
                self._end(asked["grace"], asked["reason"])
            elif self._timed and self._age() > self._spec["longest"]:
                self._end(KILL_GRACE, f"time limit {self._spec['longest']:g} s")
        elif self._ending:
            self._ending.over()
        if self._timed and not self._state["task_id"] and self._code is None and self._age() > self._spec["timeout"]:
            with self._ledger.locked():
                self._update(task_id=self._ledger.new_task(self._record))

    @property
    def _timed(self) -> bool:
        return not self._spec["background"]

    def _age(self) -> float:
        return time.monotonic() - float(self._state["began"])

    def _end(self, grace: float, reason: str) -> None:
        self._ending = Ending(0, self._command, grace)
        self._reason = reason

    def _finish(self, code: int) -> None:
        cwd = self._command.final_cwd() or self._state["cwd"]
        with self._ledger.locked():
            if self._spec["moves"]:
                with contextlib.suppress(OSError), open(self._ledger.path("cwd"), "w") as file:
                    file.write(cwd)
            seconds, total = self._age(), self._record.log.total
            self._update(ended=True, code=code, killed_by=self._reason, seconds=seconds, cwd=cwd, total=total)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._ledger.path("running", self._record.name))
            self._ledger.forget_oldest()

    def _update(self, **fields: Any) -> None:
        self._state.update(fields)
        self._record.save(self._state)
