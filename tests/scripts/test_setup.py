"""The set-up asks for the system's packages that the lists need, and for no others."""

from pathlib import Path

import pytest

from scripts.setup import install_system_packages


@pytest.mark.parametrize(
    ("lists", "missing"),
    [(["runtime"], "bubblewrap ripgrep"), (["runtime", "dev"], "bubblewrap ripgrep chromium"), (["s3"], None)],
)
def test_where_apt_cannot_be_used_one_command_is_told(
    lists: list[str],
    missing: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    install_system_packages(lists)
    told = capsys.readouterr().err
    assert told.endswith(f": sudo apt install {missing}\n") if missing else told == ""
