"""Many processes at work in one sandbox weigh no more than few in another: what is measured by test_neighbours.py."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.waiting import until
from tests.workflow.sandbox.support import Box, Host
from workflow.sandbox.fairness import CROWD, LOWEST, STEP, nice_of

FEW = 4  # not a crowd for any machine
AUTOGROUPS = Path("/proc/sys/kernel/sched_autogroup_enabled")


@pytest.mark.parametrize("number", [0, 1, 2, 3, 5, 10, 20, 40, 69])
def test_so_many_threads_weigh_about_as_much_as_one(number: int) -> None:
    assert 0.88 < max(number, 1) / STEP ** nice_of(number) < 1.12


def test_no_number_of_threads_asks_for_more_than_the_kernel_has() -> None:
    assert nice_of(1_000_000) == LOWEST


def _nice(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def _loops(host: Host, word: str) -> list[int]:
    return [pid for pid, line in host.processes().items() if line.strip() == f"bash -c while :; do :; done {word}"]


def _by_group(host: Host) -> bool:
    return "processors by it" in (host.health() or {})["limits"]


async def _at_work(host: Host, box: Box, word: str, number: int, start: str = "") -> Sequence[int]:
    loop = f"{start} bash -c 'while :; do :; done' {word}"
    await box.run(f"for i in $(seq {number}); do {loop} & done; wait", background=True)
    await until(lambda: len(_loops(host, word)) == number)
    return _loops(host, word)


async def test_processes_at_work_share_what_one_would_have(host: Host, box: Box) -> None:
    loops = await _at_work(host, box, "few", FEW)
    if _by_group(host):
        group = f"/{box.run_id.partition('.')[0]}"
        assert all(group in Path(f"/proc/{pid}/cgroup").read_text() for pid in loops)
    else:
        lowered = min(LOWEST, _nice(host.process.pid) + nice_of(FEW))
        await until(lambda: min(map(_nice, loops)) >= lowered)
    assert await box.text("nice") == f"{_nice(host.process.pid)}\n"


async def test_a_crowd_at_work_gets_what_nobody_else_wants(host: Host, box: Box) -> None:
    number = CROWD * (os.cpu_count() or 1) + 2
    if _by_group(host) or number > host.settings.sandbox.processes / 2:
        pytest.skip("control groups share out the processors, or there are too many of them for this test")
    crowd = await _at_work(host, box, "crowd", number)
    await until(lambda: {os.sched_getscheduler(pid) for pid in crowd} == {os.SCHED_IDLE})


async def test_one_process_at_work_keeps_its_weight(host: Host, box: Box) -> None:
    (loop,) = await _at_work(host, box, "alone", 1)
    await box.text("sleep 1.5")  # a few looks
    assert _nice(loop) == _nice(host.process.pid)


async def test_sessions_at_work_share_what_one_would_have(host: Host, box: Box) -> None:
    if _by_group(host) or AUTOGROUPS.read_text().strip() != "1":
        pytest.skip("the kernel does not share the processors of these sandboxes by session")
    loops = await _at_work(host, box, "sessions", 4, "setsid")

    def lowered() -> bool:
        return all(
            Path(f"/proc/{pid}/autogroup").read_text().endswith(f" nice {nice_of(len(loops))}\n") for pid in loops
        )

    await until(lowered)
