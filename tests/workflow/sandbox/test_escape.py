"""What an agent's code must not be able to do, tried in a real sandbox: as started by root, and by an ordinary user.

Memory and disk have hosts with small limits of their own: test_limits.py. The system calls: test_seccomp.py.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workflow.sandbox.conftest import SECRET
from tests.workflow.sandbox.support import Box, Host, eventually, new_box
from workflow.sandbox.base import ExecStatus, FileError, FileMissing, FileWrite, NotRegular
from workflow.sandbox.local import LocalProvider
from workflow.sandbox.usage import descendants


async def test_reading_the_hosts_passwords_finds_no_file(box: Box) -> None:
    assert "No such file" in await box.text("cat /etc/shadow; ls /root")
    assert "root:x:0:0::/root" in await box.text("cat /etc/passwd")
    assert await box.text("ls /home") == "user\n"


async def test_the_hosts_environment_is_in_no_process(box: Box) -> None:
    assert await box.text("wc -c < /proc/1/environ") == "0\n"
    assert SECRET not in await box.text("cat /proc/*/environ | tr '\\0' '\\n'; env")


async def test_the_hosts_paths_are_in_no_command_line_and_no_descriptor(host: Host, box: Box) -> None:
    assert "sleep 66" not in await box.text("ps -ef")
    assert "secret" not in await box.text("ls -A / /workspace /tmp /home/user")
    assert other.run_id.partition(".")[0] not in await box.text("cat /proc/*/cmdline; ls -R /run")
    await other.sandbox.kill_task("bg_1")


async def test_hard_links_lead_nowhere_outside(box: Box) -> None:
    assert "Invalid cross-device link" in await box.text("ln /usr/bin/env mine; ln -L /etc/ssl/openssl.cnf mine")


@pytest.mark.parametrize("mode", ["root", "user"])
async def test_killing_the_host_ends_every_sandbox(mode: str) -> None:
    if mode == "root" and os.geteuid() != 0:
        pytest.skip("only root can start the host as root")
    with Host(mode) as host:
        provider = LocalProvider(host.settings)
        for _ in range(2):
            box = await new_box(provider)
            await box.run("trap '' TERM; setsid sleep 71 & sleep 72", background=True)
        await eventually(lambda: len(_sleepers(host)) == 2)
        inside = list(host.processes())
        host.kill()
        await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in inside))
        await provider.close()
