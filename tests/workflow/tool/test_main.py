"""`python -m workflow.tool`: which tools there are here, and one called without an agent."""

from pathlib import Path

import pytest

from workflow.tool.__main__ import main


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRUNKLINE__TOOLS__ENABLED", "todo_read,todo_write")


def test_it_lists_the_tools_that_agents_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["todo_read", "repeatable"],
        ["todo_write", "idempotent"],
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["todo_write", '{"todos": [{"content": "a"}]}'], 0, "a"),
        (["todo_write", "{}"], 1, "todos is missing"),
        (["bash", "{}"], 1, "There is no tool named 'bash'"),
    ],
)
def test_it_calls_one(arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == code
    assert words in capsys.readouterr().out


def test_what_is_wrong_with_the_tools_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRUNKLINE__TOOLS__ENABLED", "todo_raed")
    assert main([]) == 2
    assert "tools.enabled names todo_raed" in capsys.readouterr().err
