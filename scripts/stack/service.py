"""One process of the stack: started, watched, started again when it dies, stopped."""

import asyncio
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.stack.errors import StackError
from scripts.stack.folder import write_private

CHILD = Path(__file__).with_name("child.py")
READY_SECONDS = 120.0
POLL_SECONDS = 0.05
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 8.0
HEALTHY_SECONDS = 30.0  # alive for so long, its next death begins a new series
DEATHS_IN_A_ROW = 6
LAST_LINES = 15
LONGEST_LINE = 256 * 1024


@dataclass(frozen=True)
class Service:
    """`ready` is asked again and again after a start. `orphaned`: the signal it gets if the supervisor is killed."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    ready: Callable[[], Awaitable[bool]]
    stop_seconds: float = 10.0
    orphaned: signal.Signals = signal.SIGKILL


class Keeper:
    """Keeps one service running. `log` is given each line that it writes, `say` what the keeper does about it."""

    def __init__(
        self, service: Service, pid_file: Path, log: Callable[[str, str], None], say: Callable[[str], None]
    ) -> None:
        self.service = service
        self._pid_file = pid_file
        self._log = log
        self._say = say
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Returns when the service is ready. Raises StackError when it dies before: a wrong setting shows at once."""
        process = await self._spawn()
        deadline = time.monotonic() + READY_SECONDS
        while not await self.service.ready():
            if process.returncode is not None:
                raise await self._failure(f"{self.service.name} {_how(process.returncode)} before it was ready")
            if time.monotonic() > deadline:
                raise await self._failure(f"{self.service.name} was not ready after {READY_SECONDS:g} s")
            await asyncio.sleep(POLL_SECONDS)

    async def keep(self) -> None:
        """Returns when the service was stopped. Raises StackError when it dies again and again."""
        deaths = 0
        process = self._process
        assert process is not None, "start() comes first"
        while True:
            started = time.monotonic()
            code = await process.wait()
            if self._stopping.is_set():
                return
            deaths = 1 if time.monotonic() - started > HEALTHY_SECONDS else deaths + 1
            if deaths >= DEATHS_IN_A_ROW:
                raise await self._failure(f"{self.service.name} {_how(code)}, the {deaths}th time in a row")
            pause = min(FIRST_PAUSE_SECONDS * 2 ** (deaths - 1), LONGEST_PAUSE_SECONDS)
            self._say(f"{self.service.name} ({process.pid}) {_how(code)}; starting it again in {pause:g} s")
            await asyncio.sleep(pause)
            if self._stopping.is_set():
                return
            process = await self._spawn()

    async def stop(self, *, at_once: bool = False) -> None:
        """SIGTERM, and SIGKILL when the service has had its time. `at_once`: what it would get as an orphan."""
        self._stopping.set()
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            process.send_signal(self.service.orphaned if at_once else signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), self.service.stop_seconds)
        except TimeoutError:
            self._say(f"{self.service.name} did not stop within {self.service.stop_seconds:g} s and was killed")
            process.kill()
            await process.wait()
        self._pid_file.unlink(missing_ok=True)

    async def _spawn(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(CHILD), str(int(self.service.orphaned)), str(os.getpid())),
            *self.service.command,
            env=self.service.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Ctrl-C in a terminal reaches the supervisor only, which stops the services in their order.
            start_new_session=True,
        )
        self._process = process
        write_private(self._pid_file, f"{process.pid}\n")
        assert process.stdout is not None
        self._reading = asyncio.create_task(self._read(process.stdout))
        return process

    async def _read(self, output: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await output.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._take(line)
        if rest:
            self._take(rest)

    def _take(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        self._last_lines.append(text)
        self._log(self.service.name, text)

    async def _failure(self, what: str) -> StackError:
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=1)
        last = "\n".join(f"  {line}" for line in self._last_lines) or "  (it said nothing)"
        return StackError(f"{what}. Its last words:\n{last}")


def _how(code: int) -> str:
    return f"exited {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
