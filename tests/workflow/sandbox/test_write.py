"""Several files written at once are written all or none: at every point of a kill, and under real ones."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.sandbox.support import Box, Host
from workflow.sandbox import sandboxd_write
from workflow.sandbox.base import ExecStatus, FileError, FileWrite, SandboxError
from workflow.sandbox.sandboxd_files import Refused

FILES = ("a", "deep/new/b", "c")
# Kills itself before its n-th change of the file system.
MORTAL = """
import os, signal, sys
from workflow.sandbox import sandboxd_write
folder, left = sys.argv[1], int(sys.argv[2])
def mortal(change):
    def changing(*args, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return change(*args, **named)
    return changing
def stubborn(replace):
    def replacing(source, target):
        if target.endswith(os.environ.get("REFUSED", "/")) and source.endswith(".tmp"):
            raise OSError(16, "Device or resource busy")
        replace(source, target)
    return replacing
for name in ("open", "replace", "link", "unlink", "makedirs"):
    setattr(os, name, mortal(getattr(os, name)))
os.replace = stubborn(os.replace)
paths = [os.path.join(folder, path) for path in sys.argv[3:]]
files = [{"path": path, "size": 3, "executable": None, "expect": None} for path in paths]
sandboxd_write.write(files, memoryview(b"new" * len(files)), folder)
"""


def content(folder: Path) -> list[bytes | None]:
    return [(folder / name).read_bytes() if (folder / name).exists() else None for name in FILES]


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("dies_again", [False, True])
def test_killed_at_any_point_all_files_are_old_or_all_are_new(tmp_path: Path, dies_again: bool) -> None:
    outcomes = []
    for point in range(100):
        folder = tmp_path / str(point)
        folder.mkdir()
        (folder / "a").write_bytes(b"old")
        (folder / "c").write_bytes(b"old")
        killed = subprocess.run([sys.executable, "-c", MORTAL, folder, str(point), *FILES], check=False).returncode
        if dies_again and (folder / sandboxd_write.JOURNAL).exists():
            _die_finishing(folder)
        sandboxd_write.finish(str(folder))
        outcomes.append(content(folder))
        assert outcomes[-1] in ([b"old", None, b"old"], [b"new"] * 3), point
        if outcomes[-1][0] == b"new":
            assert everything(folder) == set(FILES)
        if killed == 0:
            break
    assert killed == 0
    assert [b"old", None, b"old"] in outcomes
    assert outcomes.count([b"new"] * 3) > 3  # it was killed between the renames too


def _die_finishing(folder: Path) -> None:
    """In the middle of it, and the journal says as much as before."""
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(os, "unlink", _interrupt)
        sandboxd_write.finish(str(folder))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_killed_while_it_puts_files_back_all_are_old_again(tmp_path: Path) -> None:
    """The last one cannot be renamed. Those before it are put back, now or when the sandbox starts again."""
    forward = 0  # killed before anybody knew that it cannot be
    for point in range(100):
        folder = tmp_path / str(point)
        folder.mkdir()
        (folder / "a").write_bytes(b"old")
        (folder / "c").write_bytes(b"old")
        command = [sys.executable, "-c", MORTAL, str(folder), str(point), *FILES]
        ended = subprocess.run(command, check=False, capture_output=True, env={**os.environ, "REFUSED": "/c"})
        sandboxd_write.finish(str(folder))
        if content(folder) == [b"new"] * 3:
            forward += 1
        else:
            assert content(folder) == [b"old", None, b"old"], point
        assert not (folder / sandboxd_write.JOURNAL).exists()
        if ended.returncode > 0:
            break
    assert b"Refused" in ended.stderr
    assert everything(folder) == {"a", "c"}
    assert point > forward > 0


def test_where_one_cannot_be_renamed_the_others_are_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")
    replace = os.replace

    def failing(source: str, target: str) -> None:
        if target == str(tmp_path / "c"):
            raise IsADirectoryError(21, "somebody made a folder of it meanwhile")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    files = [{"path": str(tmp_path / name), "size": 1, "executable": None, "expect": None} for name in ("a", "b", "c")]
    with pytest.raises(Refused, match="c: Is a directory"):
        sandboxd_write.write(files, memoryview(b"xyz"), str(tmp_path))
    assert everything(tmp_path) == {"a"}
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null", '[["a"]]', "[" * 100_000, "\udcff"])
def test_what_is_no_journal_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").write_bytes(b"old")
    journal = tmp_path / sandboxd_write.JOURNAL
    journal.write_text(text, errors="surrogateescape")
    sandboxd_write.finish(str(tmp_path))
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_pipe_in_the_journals_place_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / sandboxd_write.JOURNAL)
    sandboxd_write.finish(str(tmp_path))


async def test_two_links_to_one_file_are_not_written_at_once(box: Box) -> None:
    await box.run("echo old > file; ln -s file link")
    with pytest.raises(FileError, match=r"file and .*link are the same file"):
        await box.sandbox.write([FileWrite("file", b"1"), FileWrite("link", b"2")], box.key(), 1, b"")
    assert await box.text("cat file") == "old\n"


async def test_a_sandbox_killed_while_it_writes_has_all_the_files_or_none(host: Host, box: Box) -> None:
    """The kills are spread over the time that a write takes."""
    count, kills = 60, 25
    dice = random.Random(1)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await box.sandbox.write(_version(0, count), box.key(), 1, b"")
    takes = loop.time() - begun
    lost, before = 0, "version-0"
    for version in range(1, kills + 1):
        writing = asyncio.create_task(box.sandbox.write(_version(version, count), box.key(), 1, b""))
        await asyncio.sleep(dice.uniform(0, takes))  # the moment is the point
        for pid in _sandboxds(host):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(SandboxError):
            await asyncio.wait([writing])
            lost += writing.exception() is not None
        while (look := await box.run("cat f* | sort | uniq -c")).status is ExecStatus.KILLED:
            pass  # the kill came after the write
        number, seen = look.output.head.split()
        assert int(number) == count
        assert seen in (before, f"version-{version}")
        before = seen
    assert lost > 0


def _version(version: int, count: int) -> list[FileWrite]:
    return [FileWrite(f"f{number}", f"version-{version}\n".encode()) for number in range(count)]


def _sandboxds(host: Host) -> list[int]:
    return [pid for pid, line in host.processes().items() if "sandboxd.pyz" in line and "python" in line.split()[0]]
