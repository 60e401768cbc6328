"""The API's description has no fault that a linter finds."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.openapi_types.document import document

LOCK = Path(__file__).resolve().parents[2] / "scripts" / "openapi_lint"
QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
INSTALL_SECONDS = 300
LINT_SECONDS = 120


@pytest.fixture(scope="module")
def redocly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The linter, as its lock has it."""
    folder = tmp_path_factory.mktemp("redocly")
    for file in LOCK.glob("package*.json"):
        shutil.copy(file, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no npm, or no registry within its reach: {error}")
    return folder / "node_modules" / ".bin" / "redocly"


def lint(redocly: Path, folder: Path, text: str) -> str:
    """What it finds, a line each."""
    (folder / "openapi.json").write_text(text)
    command = [str(redocly), "lint", "--extends", "recommended", "--format", "github-actions", "openapi.json"]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        timeout=LINT_SECONDS,
        check=False,
    )
    assert "validated in" in done.stderr, done.stderr
    return done.stdout


@pytest.mark.slow
def test_redocly_finds_nothing_wrong_with_the_description(redocly: Path, tmp_path: Path) -> None:
    assert lint(redocly, tmp_path, document()).strip() == ""


@pytest.mark.slow
def test_redocly_would_say_what_is_wrong(redocly: Path, tmp_path: Path) -> None:
    found = lint(redocly, tmp_path, document().replace('"license"', '"x-license"', 1))
    assert "info-license" in found
