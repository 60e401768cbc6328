"""The locked requirements are what pyproject.toml asks for, and can be installed from anywhere."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LISTS: dict[str, list[str]] = {
    "runtime": PROJECT["project"]["dependencies"],
    "dev": PROJECT["dependency-groups"]["dev"],
    **PROJECT["project"]["optional-dependencies"],
}
FILES = sorted((ROOT / "requirements").glob("*.txt"))


def pins(file: Path) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in PIN.findall(file.read_text())}


@pytest.mark.parametrize("name", LISTS)
def test_every_requirement_is_locked_to_a_version_that_it_allows(name: str) -> None:
    locked = pins(ROOT / "requirements" / f"{name}.txt")
    for text in LISTS[name]:
        requirement = Requirement(text)
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{text} is not in requirements/{name}.txt: run scripts/lock"
        assert version in requirement.specifier, f"{text}, but {version} is locked: run scripts/lock"


def test_the_files_agree_on_every_version() -> None:
    versions: dict[str, set[str]] = {}
    for file in FILES:
        for name, version in pins(file).items():
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_names_packages_by_hash_and_no_place_to_get_them_from(file: Path) -> None:
    text = file.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==\S+( ; .+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines)
    assert "://" not in text


def test_there_is_no_lock_file_that_names_an_index() -> None:
    assert not (ROOT / "uv.lock").exists()
