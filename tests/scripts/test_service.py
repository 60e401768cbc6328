"""A keeper and its process, with processes that do what services do on bad days."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from scripts.stack.errors import StackError
from scripts.stack.service import CHILD, DEATHS_IN_A_ROW, Keeper, Service
from tests.support.stack import until

SERVE = "import pathlib, time; pathlib.Path('ready').write_text('x'); print('serving', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVE}"


class Bench:
    """Keepers in a folder of their own, and what they said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.said: list[str] = []

    @property
    def pid_file(self) -> Path:
        return self.folder / "it.pid"

    def keeper(self, program: str, stop_seconds: float = 5) -> Keeper:
        async def ready() -> bool:
            return (self.folder / "ready").exists()

        command = [sys.executable, "-c", f"import os; os.chdir({str(self.folder)!r})\n{program}"]
        service = Service("it", command, {"PATH": os.defpath}, ready, stop_seconds)
        return Keeper(service, self.pid_file, lambda _, line: self.lines.append(line), self.said.append)

    @asynccontextmanager
    async def kept(self, program: str, stop_seconds: float = 5) -> AsyncIterator[tuple[Keeper, asyncio.Task[None]]]:
        keeper = self.keeper(program, stop_seconds)
        await keeper.start()
        keeping = asyncio.create_task(keeper.keep())
        try:
            yield keeper, keeping
        finally:
            await keeper.stop()
            await asyncio.wait({keeping})

    def pid(self) -> int:
        return int(self.pid_file.read_text())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_service_is_started_and_stopped(bench: Bench) -> None:
    async with bench.kept(SERVE):
        pid = bench.pid()
        assert is_alive(pid)
        await until(lambda: bench.lines == ["serving"], 10)
    assert not is_alive(pid)
    assert not bench.pid_file.exists()
    assert bench.said == []


async def test_a_service_that_dies_is_started_again(bench: Bench) -> None:
    async with bench.kept(SERVE):
        first = bench.pid()
        os.kill(first, signal.SIGKILL)
        await until(lambda: bench.pid() != first, 10)
        assert is_alive(bench.pid())
    assert bench.said == [f"it ({first}) was killed by SIGKILL; starting it again in 0.25 s"]


async def test_a_service_that_does_not_stop_in_its_time_is_killed(bench: Bench) -> None:
    async with bench.kept(STUBBORN, stop_seconds=0.2):
        pid = bench.pid()
    assert not is_alive(pid)
    assert "did not stop within 0.2 s" in bench.said[0]


async def test_a_service_that_ends_before_it_is_ready_says_why(bench: Bench) -> None:
    with pytest.raises(
        StackError, match=r"it exited 3 before it was ready. Its last words:\n  no such setting: colour"
    ):
        await bench.keeper("import sys; print('no such setting: colour'); sys.exit(3)").start()


async def test_a_service_that_dies_again_and_again_is_given_up_with_its_last_words(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.stack.service.FIRST_PAUSE_SECONDS", 0.001)
    program = "import pathlib, sys; pathlib.Path('ready').write_text('x'); print('disk full', flush=True); sys.exit(1)"
    (bench.folder / "ready").write_text("x")
    async with bench.kept(program) as (_, keeping):
        with pytest.raises(StackError, match=rf"the {DEATHS_IN_A_ROW}th time in a row. Its last words:\n  disk full"):
            await keeping
    assert len(bench.said) == DEATHS_IN_A_ROW - 1


async def test_a_line_without_end_does_not_fill_the_memory(bench: Bench) -> None:
    flood = f"import sys; sys.stdout.write('x' * 1_000_000); sys.stdout.flush()\n{SERVE}"
    async with bench.kept(flood):
        await until(lambda: bool(bench.lines) and bench.lines[-1].endswith("serving"), 10)
    assert max(len(line) for line in bench.lines) < 400_000


def test_a_child_dies_with_its_parent() -> None:
    child = [sys.executable, "-I", "-S", str(CHILD), str(int(signal.SIGTERM))]
    program = (
        "import os, subprocess, sys\n"
        f"child = subprocess.Popen([*{child!r}, str(os.getpid()), 'sleep', '60'])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    # Until it has become `sleep`, it is on its way there.
    asyncio.run(until(lambda: "sleep" in Path(f"/proc/{pid}/cmdline").read_text(), 10))
    parent.kill()
    parent.wait()
    asyncio.run(until(lambda: not is_alive(pid), 10))


def test_a_child_whose_parent_is_gone_does_not_begin() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(CHILD), "15", "1", "echo", "begun"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
