"""The data folder of a stack."""

import os
import re
import stat
import subprocess
import zlib
from pathlib import Path

import pytest

from scripts.stack.errors import StackError
from scripts.stack.folder import MARK, DataFolder, new_key


def test_the_first_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "new" / "data")
    key = folder.key()
    assert DataFolder(tmp_path / "new" / "data").key() == key
    assert stat.S_IMODE((folder.path / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


def test_a_key_carries_its_checksum() -> None:
    key = new_key()
    assert re.fullmatch(r"tl_local_[0-9A-Za-z]{36}", key)
    random, checksum = key[9:39], key[39:]
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    number = 0
    for char in checksum:
        number = number * 62 + digits.index(char)
    assert number == zlib.crc32(random.encode())
    assert new_key() != key


def test_a_second_stack_on_the_folder_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    with folder.held():
        folder.announce("http://127.0.0.1:8123")
        assert DataFolder(tmp_path).is_held()
        with pytest.raises(StackError, match=rf"process {os.getpid()}, http://127.0.0.1:8123"), folder.held():
            pass
    assert not folder.is_held()
    with folder.held():
        assert folder.url() is None


def test_what_a_killed_stack_left_behind_is_cleared_away(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.announce("http://127.0.0.1:8123")
    left = subprocess.Popen(["sleep", "60"], env={"PATH": os.defpath, MARK: str(tmp_path)})
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        folder.pid_file("valkey").write_text(f"{left.pid}\n")
        folder.pid_file("gateway").write_text(f"{stranger.pid}\n")
        folder.pid_file("worker-1").write_text("")
        left.terminate()
        with folder.held():
            assert left.wait(5) != 0
            assert stranger.poll() is None
            assert list(folder.run.glob("*.pid")) == []
            assert folder.url() is None
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()
