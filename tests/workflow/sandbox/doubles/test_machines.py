"""The machines that the doubles stand on."""

import contextlib
import tempfile
from collections.abc import Collection, Iterator
from os import getpid
from pathlib import Path

import pytest

from tests.support.machines.machine import MachineError, MachineGone, Machines
from workflow.sandbox.usage import descendants


def below_us(but: Collection[int] = ()) -> str:
    lines = []
    for pid in set(descendants(getpid())).difference(but):
        with contextlib.suppress(OSError):
            lines.append(Path(f"/proc/{pid}/cmdline").read_text())
    return "\n".join(lines)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Sockets' names must be short, and those of `tmp_path` are long."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


async def test_nothing_is_left_when_they_end(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    others = descendants(getpid())  # of tests that share a process with this one
    async with Machines("/home/user", "user") as machines:
        machine = await machines.start("one")
        (await machine.spawn(["/bin/sleep", "300"], env={}, cwd="/")).close()
        assert "machines.keeper" in below_us(others)
    assert "machines.keeper" not in below_us(others)
    assert "bwrap" not in below_us(others)
    assert list(short_path.iterdir()) == []


async def test_a_stopped_machine_is_gone_for_who_follows_it_and_who_asks() -> None:
    async with Machines("/home/user", "user") as machines:
        machine, other = await machines.start("one"), await machines.start("two")
        running = await machine.spawn(["/bin/sleep", "300"], env={}, cwd="/")
        await machines.stop(machine)
        with pytest.raises(MachineGone):
            async for _ in running.output():
                pass
        with pytest.raises(MachineGone):
            await machine.info("/")
        assert (await other.info("/workspace")).directory


async def test_machines_do_not_see_each_other() -> None:
    async with Machines("/home/user", "user") as machines:
        machine, other = await machines.start("one"), await machines.start("two")
        await machine.ask("make_folder", path="/workspace/mine", mode=0o755)
        with pytest.raises(MachineError):
            await other.info("/workspace/mine")
