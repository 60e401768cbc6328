"""What templates depend on is installed from locks, whole or not at all."""

import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from tests.workflow.template.support import MANIFEST, a_template
from workflow.template.install import NotInstalled, install, main
from workflow.template.template import load_template

PYTHON = MANIFEST + "[dependencies]\nkind = 'python'\nlock = 'requirements.txt'\ninstall = 'pip'\n"
NPM = MANIFEST + "[dependencies]\nkind = 'npm'\nlock = 'package-lock.json'\ninstall = 'npm ci'\n"
EMPTY_LOCK = '{"name": "x", "lockfileVersion": 3, "packages": {"": {"name": "x"}}}'


@pytest.fixture(autouse=True)
def _no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("npm_config_offline", "true")


def test_a_lock_without_packages_needs_no_registry_and_is_installed_once(tmp_path: Path) -> None:
    template = load_template(a_template(tmp_path, manifest=PYTHON, files={"requirements.txt": "# nothing\n"}))
    folder = tmp_path / "packages"
    assert install(template, folder) is True
    assert [path.name for path in folder.iterdir()] == [template.installed_name]
    assert (folder / str(template.installed_name) / "setup").stat().st_mode & 0o005
    assert install(template, folder) is False


def a_wheel(folder: Path) -> str:
    """The hash of a package `tiny` in `folder`."""
    wheel = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    return sha256(wheel.read_bytes()).hexdigest()


def test_a_package_is_installed_for_the_hash_that_the_lock_has_and_for_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    digest, folder = a_wheel(tmp_path), tmp_path / "packages"
    for place, given in (("wrong", "0" * 64), ("right", digest)):
        lock = {"requirements.txt": f"tiny==1.0 --hash=sha256:{given}\n"}
        template = load_template(a_template(tmp_path / place, manifest=PYTHON, files=lock))
        if place == "wrong":
            with pytest.raises(NotInstalled, match="HASHES"):
                install(template, folder)
            assert list(folder.iterdir()) == []
        else:
            install(template, folder)
            assert len(list(folder.glob("note-*/python3.*/tiny.py"))) == 1


def test_packages_for_two_pythons_stand_side_by_side(tmp_path: Path) -> None:
    template = load_template(a_template(tmp_path, manifest=PYTHON, files={"requirements.txt": "# nothing\n"}))
    older = tmp_path / "packages" / str(template.installed_name) / "python3.0"
    older.mkdir(parents=True)
    assert install(template, tmp_path / "packages")
    assert len(list(older.parent.glob("python3.*"))) == 2


def test_without_npm_the_others_are_installed_and_the_answer_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_template(tmp_path / "own", "web", NPM, {"package-lock.json": EMPTY_LOCK, "package.json": '{"name": "x"}'})
    a_template(tmp_path / "own", "zero", PYTHON, {"requirements.txt": "# nothing\n"})
    monkeypatch.setenv("TRUNKLINE__TEMPLATES__FOLDER", str(tmp_path / "own"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["web", "zero", "static-site", "--data", str(tmp_path / "data")]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "static-site: nothing to install",
        "web: NOT installed: it needs Node.js 20.19 or later with npm (apt install nodejs npm); then try again",
        "zero: installed",
    ]


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workflow.template.install", "cobol", "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("No such template: cobol. There are: fastapi-service, ")
