"""The logbook tells a later life of the host what may have begun in an earlier one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from workflow.sandbox import logbook as module
from workflow.sandbox.logbook import Logbook


@pytest.fixture
def lives(tmp_path: Path) -> Callable[[], Logbook]:
    """Opens the logbook as another life of the host does."""
    return lambda: Logbook(tmp_path / "t")


def test_a_later_life_knows_what_began_and_what_did_not(lives: Callable[[], Logbook]) -> None:
    first = lives()
    first.begin("run/1", 3)
    first.begin("run/2", 4)
    first.task("bg_1")
    later = lives()
    for life in (first, later):
        assert life.cannot_tell("run/1")
        assert not life.cannot_tell("run/3")
    assert (later.epochs, later.tasks) == ({"run": 4}, {"bg_1"})


def test_what_had_no_effect_may_begin_again(lives: Callable[[], Logbook]) -> None:
    logbook = lives()
    logbook.begin("run/1", 1)
    logbook.forget("run/1")
    assert not logbook.cannot_tell("run/1")


def test_a_line_cut_off_by_a_kill_harms_no_other(lives: Callable[[], Logbook], tmp_path: Path) -> None:
    lives().begin("run/1", 1)
    with (tmp_path / "t").open("a") as file:
        file.write('{"key":"run/2","ep')
    lives().begin("run/3", 1)
    last = lives()
    assert {key for key in ("run/1", "run/2", "run/3") if last.cannot_tell(key)} == {"run/1", "run/3"}


def test_after_a_reboot_lines_may_be_missing(
    lives: Callable[[], Logbook], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_however_many_there_are_no_file_is_held_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    logbooks = [Logbook(tmp_path / str(number)) for number in range(20)]
    for logbook in logbooks:
        logbook.begin("run/1", 1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
