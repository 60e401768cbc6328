"""What a sandbox may use, on hosts with small limits: started by root (tier A or B), and by an ordinary user (C)."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.workflow.sandbox.support import Box, Host, new_box
from workflow.sandbox.base import ExecStatus, FileWrite, SandboxRefused
from workflow.sandbox.limits import Limits
from workflow.sandbox.local import LocalProvider
from workflow.tool.shell import hints_for

MIB = 1024**2


@pytest.fixture(scope="module", params=["root", "user"])
def small_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("only root can start the host as root")
    with Host(
        request.param,
        memory_bytes=128 * MIB,
        disk_bytes=40 * MIB,
        file_bytes=16 * MIB,
        processes=64,
        open_files=64,
        cpu_seconds=2,
    ) as host:
        yield host


@pytest.fixture
async def small(small_host: Host) -> AsyncIterator[Box]:
    provider = LocalProvider(small_host.settings)
    try:
        yield await new_box(provider)
    finally:
        await provider.close()


async def test_the_host_names_the_tier_that_is_in_use(small_host: Host) -> None:
    limits = (small_host.health() or {})["limits"]
    assert limits.startswith("tier ")
    assert limits in small_host.log.read_text()
    if small_host.mode == "user":
        assert "tier C" in limits or "tier A" in limits


async def test_a_memory_hog_is_killed_and_the_result_says_why(small: Box) -> None:
    result = await small.run("python3 -c 'x = bytearray(400_000_000); import time; time.sleep(30)'; exit $?")
    assert (result.status, result.exit_code) == (ExecStatus.KILLED, 137)
    assert result.killed_by == "sandbox memory limit 128 MiB"
    assert await small.text("echo alive") == "alive\n"


async def test_many_small_hogs_together_are_over_the_limit_too(small: Box) -> None:
    hog = "python3 -c 'x = bytearray(40_000_000); import time; time.sleep(30)'"
    result = await small.run(f"for i in 1 2 3 4 5; do {hog} & done; wait -n; exit $?")
    assert result.killed_by == "sandbox memory limit 128 MiB"


async def test_a_sandbox_may_have_less_than_the_host_gives_and_never_more(small: Box) -> None:
    async def process_limit() -> str:
        return (await small.text("ulimit -u")).strip()

    assert (await process_limit(), await small.text("echo 1 >/tmp/there")) == ("64", "")
    small.sandbox.limit(Limits(memory_bytes=64 * MIB, processes=32, disk_bytes=20 * MIB))
    assert await process_limit() == "32"
    assert await small.text("ls /tmp") == ""  # started anew, once
    hog = await small.run("python3 -c 'x = bytearray(90_000_000); import time; time.sleep(30)'; exit $?")
    assert hog.killed_by == "sandbox memory limit 64 MiB"
    full = await small.run("for i in 1 2 3; do head -c 10M /dev/zero > fill$i; done; sleep 30")
    assert full.killed_by == "sandbox disk limit 20 MiB"
    small.sandbox.limit(Limits(processes=10_000))
    assert await process_limit() == "64"


async def test_other_limits_wait_while_something_goes_on_in_the_sandbox(small: Box) -> None:
    task = await small.run("sleep 100", background=True)
    small.sandbox.limit(Limits(processes=32))
    assert (await small.text("ulimit -u")).strip() == "64"
    await small.kill(task)
    assert (await small.text("ulimit -u")).strip() == "32"


async def test_memory_that_nobody_maps_is_counted_or_refused(small: Box) -> None:
    code = "import os; f = os.memfd_create('x'); [os.write(f, bytes(1_000_000)) for _ in range(400)]"
    result = await small.run(f'python3 -c "{code}"')
    text = result.output.head + result.output.tail
    assert "Function not implemented" in text or "File too large" in text or result.killed_by


async def test_writers_are_ended_when_the_disk_is_full_and_deleting_helps(small: Box) -> None:
    result = await small.run("for i in $(seq 12); do head -c 10M /dev/zero > fill$i; done; sleep 30")
    assert result.killed_by == "sandbox disk limit 40 MiB"
    with pytest.raises(SandboxRefused, match="disk limit"):
        await small.sandbox.write([FileWrite("x", b"x")], small.key(), 1, b"")
    assert (await small.run("rm fill*; sleep 6")).exit_code == 0
    await small.sandbox.write([FileWrite("x", b"x")], small.key(), 1, b"")


@pytest.mark.parametrize(
    "hidden",
    [
        pytest.param(
            "mkdir d; for i in 1 2 3 4 5; do head -c 10M /dev/zero > d/$i; done; chmod 000 d; sleep 30",
            id="in a closed folder",
        ),
        pytest.param(
            'for i in 3 4 5 6 7; do eval "exec $i<>f"; rm f; head -c 10M /dev/zero >&$i; done; sleep 30',
            id="in files without a name",
        ),
        pytest.param("seq 12000 | xargs -n 500 touch; sleep 30", id="in too many files", marks=pytest.mark.slow),
    ],
)
async def test_disk_space_cannot_be_hidden(small: Box, hidden: str) -> None:
    result = await small.run(hidden)
    assert result.killed_by == "sandbox disk limit 40 MiB"


async def test_measuring_the_disk_changes_nothing_on_it(small: Box) -> None:
    await small.run("mkdir closed; chmod 000 closed; sleep 1")
    assert (await small.sandbox.stat("closed")).mode == 0


async def test_one_file_is_of_limited_size(small: Box) -> None:
    result = await small.run("head -c 30M /dev/zero > big; exit $?")
    assert (result.exit_code, result.killed_by) == (153, "file size limit 16 MiB")


async def test_processor_time_is_limited(small: Box) -> None:
    result = await small.run("while :; do :; done")
    assert (result.exit_code, result.killed_by) == (152, "processor time limit 2 s")


async def test_descriptors_are_limited(small: Box) -> None:
    code = "import os; [os.dup(0) for _ in range(1000)]"
    assert "Too many open files" in await small.text(f"python3 -c '{code}'")


async def test_limits_cannot_be_raised_from_inside(small: Box) -> None:
    code = "import resource as r; r.setrlimit(r.RLIMIT_{0}, (r.RLIM_INFINITY,) * 2)"
    for name in ("NPROC", "NOFILE", "FSIZE", "CPU", "CORE"):
        assert "not allowed" in await small.text(f"python3 -c '{code.format(name)}'")


async def test_a_full_process_table_is_reported_and_can_be_cleared(small: Box) -> None:
    full = await small.run("while sleep 100 & do :; done 2>/dev/null; sleep 100", timeout_seconds=3)
    assert full.task_id
    with pytest.raises(SandboxRefused, match="end some background tasks first"):
        await small.run("true")
    await small.kill(full)
    assert await small.text("echo alive") == "alive\n"


@pytest.mark.parametrize(
    "code",
    [
        "for i in $(seq 100); do sleep 5 & done",
        "python3 -c 'import threading as t, time; [t.Thread(target=time.sleep, args=[3]).start() for _ in range(99)]'",
        "python3 -c \"import subprocess as s; [s.Popen(['sleep', '5']) for _ in range(99)]\"",
    ],
    ids=["bash", "threads", "processes"],
)
async def test_a_program_that_wants_too_many_processes_is_explained(small: Box, code: str) -> None:
    result = await small.run(code)
    (hint,) = hints_for(result, small.sandbox.capabilities)
    assert "its limit of 64 processes and threads" in hint


async def test_a_background_task_tells_which_limit_ended_it(small: Box) -> None:
    task = await small.run(
        "python3 -c 'x = bytearray(400_000_000); import time; time.sleep(30)'; exit $?", background=True
    )
    ended = await small.sandbox.task_output(str(task.task_id), block_seconds=20)
    assert ended.task.killed_by == "sandbox memory limit 128 MiB"


async def test_a_foreground_command_has_a_longest_time_even_in_the_background(small_host: Host) -> None:
    with Host(small_host.mode, max_command_seconds=1) as host:
        provider = LocalProvider(host.settings)
        box = await new_box(provider)
        began = await box.run("sleep 30", timeout_seconds=0.2)
        started = await box.run("sleep 3; echo done", background=True)
        assert began.task_id
        assert started.task_id
        ended = await box.sandbox.task_output(began.task_id, block_seconds=10)
        assert ended.task.killed_by == "time limit 1 s"
        assert (await box.sandbox.task_output(started.task_id, block_seconds=10)).text == "done\n"
        await provider.close()


async def test_an_idle_sandbox_rests_and_its_files_stay() -> None:
    with Host("user", idle_seconds=0.5) as host:
        provider = LocalProvider(host.settings)
        box = await new_box(provider)
        ref = box.sandbox.ref
        thread_id = box.run_id.partition(".")[0]
        task = await box.run("echo x > kept; cd /tmp; sleep 60", background=True)
        long = await box.run("sleep 1.5; echo still here")
        assert long.output.head == "still here\n"
        async with asyncio.timeout(10):
            while host.processes():
                await asyncio.sleep(0.05)
        ended = await box.sandbox.task_output(str(task.task_id))
        assert ended.task.killed_by == "the sandbox was idle for 0.5 s"
        again = await provider.acquire(thread_id, ref)
        assert "restarted" in str(again.notice)
        assert (await again.read("kept")).content == b"x\n"
        await provider.close()
