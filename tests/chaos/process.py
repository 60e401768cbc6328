"""One process of the fleet: started again whenever it ends, until it is to stop."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from tests.support.stack import ROOT, ends_with_us

POLL_SECONDS = 0.05
PAUSE_SECONDS = 0.5

OnExit = Callable[["Process", int, int], Awaitable[None]]


class Process:
    """`on_exit(process, pid, code)` is told of every end that `stop` did not bring."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        logs: Path,
        on_exit: OnExit,
    ) -> None:
        self.name = name
        self.environment = dict(environment)
        self._command = ends_with_us(command)
        self._log = logs / f"{name}.log"
        self._on_exit = on_exit
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int:
        """0 while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep())

    def tell(self, number: signal.Signals) -> int:
        """Returns the pid that was told, 0 if there was none."""
        pid = self.pid
        if pid:
            os.kill(pid, number)
        return pid

    def kill(self) -> None:
        """`kill -9`; it is started again."""
        self.tell(signal.SIGKILL)

    async def stop(self, seconds: float) -> None:
        """Ends it for good: SIGTERM, and SIGKILL after so many seconds."""
        self._stopping = True
        self.tell(signal.SIGCONT)
        self.tell(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                while self.pid:
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            self.tell(signal.SIGKILL)
        if self._keeper is not None:
            await self._keeper

    async def _keep(self) -> None:
        while not self._stopping:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
                )
            while (code := self._process.poll()) is None:
                await asyncio.sleep(POLL_SECONDS)
            if not self._stopping:
                await self._on_exit(self, self._process.pid, code)
                await asyncio.sleep(PAUSE_SECONDS)
