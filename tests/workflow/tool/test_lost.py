"""Tools whose sandbox ends under them: what is certain is said, and what is not is not guessed."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from shared.errors import ErrorCode
from shared.ids import new_thread_id
from tests.workflow.sandbox.support import Host
from tests.workflow.tool.support import Caller
from workflow.sandbox.base import SandboxFenced
from workflow.sandbox.local import LocalProvider
from workflow.tool.base import OutcomeUnknown

EDIT = {"file_path": "f", "old_string": "1", "new_string": "2"}


@pytest.fixture
def mortal() -> Iterator[Host]:
    """A host that the test may kill."""
    with Host("root" if os.geteuid() == 0 else "user") as running:
        yield running


@pytest.fixture
async def provider(mortal: Host) -> AsyncIterator[LocalProvider]:
    provider = LocalProvider(mortal.settings)
    yield provider
    await provider.close()


def restart(host: Host) -> None:
    host.kill()
    host.start()


async def test_whatever_was_in_flight_is_unknown_and_the_next_attempt_is_told(
    mortal: Host, provider: LocalProvider
) -> None:
    thread_id = new_thread_id()
    call = Caller(await provider.acquire(thread_id, None))
    ref = call.box.ref
    await call("write_files", files=[{"file_path": "f", "content": "1\n"}])
    await call.run("edit", "edit_file", **EDIT)
    running = asyncio.create_task(call.run("bash", "bash", command="touch began; sleep 60"))
    async with asyncio.timeout(20):
        while "began" not in (await call("ls")).content:
            await asyncio.sleep(0.02)
    restart(mortal)
    with pytest.raises(OutcomeUnknown, match="bash was cut off") as unknown:
        await running
    assert unknown.value.code is ErrorCode.SANDBOX_LOST
    with pytest.raises(OutcomeUnknown, match="bash was cut off"):
        await call.recover("bash", "bash", command="sleep 60")
    edited = await call.recover("edit", "edit_file", **EDIT)
    assert edited
    assert edited.content.startswith("Edited /workspace/f")
    assert await call.recover("other", "edit_file", **EDIT) is None
    assert await call.recover("other", "ls") is None

    call.box = await provider.acquire(thread_id, ref)
    told = await call("read_file", file_path="f")
    assert told.content.startswith("     1→2\n(End of file - 1 line)\n[The sandbox was restarted")
    assert "restarted" not in (await call("ls")).content

    ref = call.box.ref
    restart(mortal)
    call.box = await provider.acquire(thread_id, ref)
    assert "restarted" in (await call("ls")).content


async def test_background_tasks_of_a_lost_sandbox_are_gone(mortal: Host, provider: LocalProvider) -> None:
    call = Caller(await provider.acquire(new_thread_id(), None))
    await call("bash", command="sleep 60", run_in_background=True)
    restart(mortal)
    read = await call("bash_output", task_id="bg_1")
    assert (read.ok, read.error_code) == (False, "sandbox_lost")
    assert (await call("ls")).ok


async def test_an_attempt_that_was_superseded_may_do_nothing(mortal: Host, provider: LocalProvider) -> None:
    call = Caller(await provider.acquire(new_thread_id(), None), epoch=2)
    await call("bash", command="true")
    call.epoch = 1
    with pytest.raises(SandboxFenced):
        await call("bash", command="touch made")
    with pytest.raises(SandboxFenced):
        await call("write_files", files=[{"file_path": "made", "content": ""}])
    assert (await call("ls")).content == "/workspace is empty"
