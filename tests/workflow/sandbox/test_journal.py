"""The journal tells a later life of the host what may have begun in an earlier one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from workflow.sandbox import journal as module
from workflow.sandbox.journal import Journal


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Callable[[], Journal]]:
    """Opens the journal as another life of the host does."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(Journal(tmp_path / "t")))


def test_a_later_life_knows_what_began_and_what_did_not(lives: Callable[[], Journal]) -> None:
    first = lives()
    first.begin("run/1", 3)
    first.begin("run/2", 4)
    first.task("bg_1")
    assert not first.cannot_tell("run/1")  # this life knows its own commands by itself
    later = lives()
    assert later.cannot_tell("run/1")
    assert not later.cannot_tell("run/3")
    assert (later.epochs, later.tasks) == ({"run": 4}, {"bg_1"})


def test_a_line_cut_off_by_a_kill_harms_no_other(lives: Callable[[], Journal], tmp_path: Path) -> None:
    lives().begin("run/1", 1)
    with (tmp_path / "t").open("a") as file:
        file.write('{"key":"run/2","ep')
    lives().begin("run/3", 1)
    last = lives()
    assert {key for key in ("run/1", "run/2", "run/3") if last.cannot_tell(key)} == {"run/1", "run/3"}


def test_after_a_reboot_lines_may_be_missing(
    lives: Callable[[], Journal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives().begin("old/1", 1)
    boot = tmp_path / "boot"
    boot.write_text("another boot\n")
    monkeypatch.setattr(module, "_BOOT_ID", boot)
    later = lives()
    assert later.cannot_tell("old/2")
    assert later.cannot_tell("new/1")
    later.begin("new/1", 1)
    assert not later.cannot_tell("new/2")  # this run has been here since: what it began is known
    assert later.cannot_tell("old/1")
