"""File operations, resolved inside the sandbox."""

import asyncio
import os
import signal

import pytest

from tests.support.waiting import until
from tests.workflow.sandbox.support import Box, Host, stopped_sandboxds
from workflow.sandbox.base import (
    FileWrite,
    SandboxLost,
)


async def test_of_a_write_that_the_sandbox_ended_under_nobody_says_that_it_never_was(host: Host, box: Box) -> None:
    key = box.key()
    await box.run("kill -STOP 2 & sleep 0.1", background=True)
    await until(lambda: bool(stopped_sandboxds(host)))
    writing = asyncio.create_task(box.sandbox.write([FileWrite("x", b"")], key, 1, b""))
    logbook = host.settings.workspaces / ".host" / f"{box.run_id.partition('.')[0]}.jsonl"
    await until(lambda: key in logbook.read_text())
    for pid in stopped_sandboxds(host):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(SandboxLost):
        await writing
    with pytest.raises(SandboxLost):
        await box.sandbox.recall(key, 2)
    with pytest.raises(SandboxLost):
        await box.sandbox.write([FileWrite("x", b"")], key, 2, b"")
