"""The program as its user sees it: arguments in, text and exit code out."""

from pathlib import Path

import pytest

from @@name.snake@@.cli import SUMMARY, main


def test_words_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "text.txt"
    file.write_text("one two\nthree\n", encoding="utf-8")
    assert main(["count", str(file)]) == 0
    assert capsys.readouterr().out == "3\n"


def test_a_missing_file_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["count", "/nowhere/text.txt"]) == 1
    assert "/nowhere/text.txt" in capsys.readouterr().err


def test_the_help_tells_what_the_program_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "".join(SUMMARY.split()) in "".join(capsys.readouterr().out.split())


def test_without_a_command_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "usage:" in capsys.readouterr().err
