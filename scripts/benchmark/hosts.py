"""A sandbox host for the bench: `python -m scripts.benchmark.hosts UID` starts one that is an ordinary user's."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.stack.ports import free_port
from shared.config import SandboxSettings, Settings, load_settings
from shared.log import configure_logging
from workflow.sandbox import host

START_SECONDS = 20
USER_UID = 64322  # anybody but root and the user of the sandboxes


@contextmanager
def running_host(data: Path, *, as_user: bool = False, **sandbox: Any) -> Iterator[tuple[Settings, int]]:
    """The settings to reach it, and its pid. `as_user`: not as root, even where root runs the bench."""
    given_up = as_user and os.geteuid() == 0
    if given_up:
        os.chown(data, USER_UID, USER_UID)
    url = f"http://127.0.0.1:{free_port()}"
    environ = {
        **os.environ,
        "TRUNKLINE__DATA": str(data),
        "TRUNKLINE__LOG__LEVEL": "ERROR",
        "TRUNKLINE__SANDBOX__HOST_URL": url,
        **{f"TRUNKLINE__SANDBOX__{name.upper()}": str(value) for name, value in sandbox.items()},
    }
    module = ["scripts.benchmark.hosts", str(USER_UID)] if given_up else ["workflow.sandbox.host"]
    process = subprocess.Popen([sys.executable, "-P", "-m", *module], env=environ)
    settings = Settings(data=data, sandbox=SandboxSettings(host_url=url))
    deadline = time.monotonic() + START_SECONDS
    try:
        while not settings.sandbox_token_file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield settings, process.pid
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def main() -> None:
    """Imports are over by now: this user may not be able to enter the interpreter's folder."""
    uid = int(sys.argv[1])
    settings = load_settings()
    configure_logging(settings.log, "sandbox-host")
    os.umask(0o077)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    host.run(settings)


if __name__ == "__main__":
    main()
