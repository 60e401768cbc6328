"""What the host does to processes by their numbers."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.workflow.sandbox.support import wait_until
from workflow.sandbox.usage import descendants, kill_below


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two shells, each with a child that sleeps."""
    shells = [subprocess.Popen(["/bin/sh", "-c", "sleep 60; exit 3"]) for _ in range(2)]
    wait_until(lambda: all(descendants(shell.pid) for shell in shells))
    yield shells
    for shell in shells:
        for child in descendants(shell.pid):
            os.kill(child, 9)
        shell.kill()
        shell.wait(5)


def test_a_process_is_killed_below_its_ancestor_only(sleepers: list[subprocess.Popen[bytes]]) -> None:
    first, second = sleepers
    [child] = descendants(second.pid)
    kill_below(first.pid, child)
    assert descendants(second.pid) == [child]
    kill_below(second.pid, child)
    assert second.wait(5) == 3


def test_a_process_that_has_ended_is_nobody(sleepers: list[subprocess.Popen[bytes]]) -> None:
    first, _ = sleepers
    ended = subprocess.Popen(["true"])
    ended.wait(5)
    kill_below(first.pid, ended.pid)
    assert first.poll() is None
