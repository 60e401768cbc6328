"""Notes outlive the host, are never a wrong answer, and are limited in number."""

from pathlib import Path

import pytest

from workflow.sandbox import logbook
from workflow.sandbox.notes import MAX_NOTES, Notes


def test_a_note_is_found_again_in_another_life_of_the_host(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    Notes(folder).keep("run/1", b"a \xff\n")
    Notes(folder).keep("run/2", b"")
    found = Notes(folder)
    assert (found.get("run/1"), found.get("run/2"), found.get("run/3")) == (b"a \xff\n", b"", None)


def test_the_newest_are_kept(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    for number in range(MAX_NOTES + 8):
        notes.keep(f"run/{number}", b"x")
    assert [number for number in range(MAX_NOTES + 8) if notes.get(f"run/{number}")] == list(range(8, MAX_NOTES + 8))
    assert len(list(tmp_path.iterdir())) == MAX_NOTES


def test_after_a_reboot_none_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a note tells of may not have reached the disk."""
    Notes(tmp_path / "notes").keep("run/1", b"x")
    boot = tmp_path / "boot"
    boot.write_text("another boot\n")
    monkeypatch.setattr(logbook, "_BOOT_ID", boot)
    assert Notes(tmp_path / "notes").get("run/1") is None


def test_a_note_that_cannot_be_kept_is_not_there_and_nobody_is_stopped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    notes = Notes(tmp_path / "file")
    notes.keep("run/1", b"x")
    assert "run/1" in caplog.text
    assert notes.get("run/1") is None
