"""The README's first command on a fresh clone, with nothing in the environment but where programs and packages are."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE_SETTINGS = re.compile(r"(PIP|UV|SSL|REQUESTS)_.*|.*_(proxy|PROXY)|HOME")
PROGRAMS = ("/usr/local/bin", "/usr/bin", "/bin")
TASK = "Write fizzbuzz.py, run it for 15, and tell me the output"


def environment() -> dict[str, str]:
    base_python = str(Path(sys.base_prefix) / "bin")
    settings = {name: value for name, value in os.environ.items() if PACKAGE_SETTINGS.fullmatch(name)}
    return {**settings, "PATH": ":".join((base_python, *PROGRAMS))}


def start(clone: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = ["bash", "scripts/run", *arguments]
    return subprocess.Popen(
        command, cwd=clone, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_fresh_clone_sets_itself_up_once_however_many_begin_at_once(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    both = [start(clone, TASK), start(clone, TASK, "--data", "other")]
    told = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert sum("Setting up" in errors for _, errors in told) == 1
    assert all("│ FizzBuzz" in output for output, _ in told)

    settled = subprocess.run(
        ["bash", "-xc", ". scripts/_setup runtime"], cwd=clone, env=environment(), stderr=subprocess.PIPE, check=True
    )
    assert b"_installed runtime" in settled.stderr
    assert b"_set_up" not in settled.stderr, "what is set up is set up again"
    left = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert left.stdout == "?? other/\n"
