"""Commands: keys, epochs, time, the background, cancelling. On a host started by root and on one started by a user."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from tests.support.waiting import until
from tests.workflow.sandbox.support import Box, Host, new_box, stopped_sandboxds
from workflow.sandbox.base import ExecStatus, FileWrite
from workflow.sandbox.local import LocalProvider


async def test_a_flood_of_output_is_kept_at_both_ends_in_little_memory(host: Host, box: Box) -> None:
    before = _resident(host.process.pid)
    result = await box.run("echo first; head -c 100000000 /dev/zero | tr '\\0' 'x'; echo; echo last")
    assert result.output.head.startswith("first\nxxx")
    assert result.output.tail.endswith("x\nlast\n")
    assert len(result.output.head) + len(result.output.tail) == 30_000
    assert result.output.omitted_bytes + 30_000 == 100_000_000 + len("first\n\nlast\n")
    assert result.dropped_bytes == pytest.approx(90_000_000, rel=0.01)
    assert "bytes left out]" in box.shown
    assert _resident(host.process.pid) - before < 64 * 1024**2


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_twenty_sandboxes_live_beside_each_other(provider: LocalProvider) -> None:
    boxes = [await new_box(provider) for _ in range(20)]
    command = "echo > mine; sleep 0.3; ls; pgrep -xc python3"  # sandboxd is one
    texts = await asyncio.gather(*(box.text(command) for box in boxes))
    assert set(texts) == {"mine\n1\n"}


async def test_an_agent_that_kills_sandboxd_loses_its_sandbox_and_gets_another(box: Box) -> None:
    result = await box.run("echo x > kept; kill -9 2; sleep 30")
    assert (result.status, result.killed_by) == (ExecStatus.KILLED, "the end of the sandbox")
    assert await box.text("cat kept") == "x\n"


async def test_an_agent_that_stops_sandboxd_cannot_hold_up_a_cancellation(host: Host, box: Box) -> None:
    stopped = asyncio.create_task(box.run("echo x > kept; kill -STOP -1; sleep 60"))
    await until(lambda: bool(stopped_sandboxds(host)))
    began = time.monotonic()
    await box.sandbox.cancel(box.run_id, 1)
    assert time.monotonic() - began < 30  # half of what it would sleep
    assert (await stopped).killed_by == "cancellation"
    assert await box.text("cat kept") == "x\n"


async def test_fifty_commands_run_at_once_in_one_sandbox(box: Box) -> None:
    waits = "echo on; until [ -e go ]; do sleep 0.3; done; echo {}"
    running = [asyncio.create_task(box.run(waits.format(number))) for number in range(50)]
    await until(lambda: box.shown.count("on\n") == 50)
    await box.sandbox.write([FileWrite("go", b"")], box.key(), 1, b"")
    results = await asyncio.gather(*running)
    assert [result.output.head for result in results] == [f"on\n{number}\n" for number in range(50)]
