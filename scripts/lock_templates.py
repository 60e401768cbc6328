"""Resolves the lock files of the built-in code templates anew: hashes, and no index address. Called by scripts/lock."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from workflow.template.install import write_default
from workflow.template.templates import BUILT_IN, load_templates

UV = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
UV_OUTPUT = ["--no-annotate", "--no-header", "--generate-hashes", "--no-emit-index-url"]
NPM = ["npm", "install", "--package-lock-only", "--ignore-scripts", "--omit-lockfile-registry-resolved", "--no-audit"]


def main() -> None:
    for template in load_templates():
        if needed := template.manifest.dependencies:
            lock = lock_python if needed.kind == "python" else lock_npm
            with tempfile.TemporaryDirectory() as place:
                write_default(template, Path(place))
                lock(template.name, Path(place))
            print(f"{template.name}: locked")


def lock_python(name: str, place: Path) -> None:
    """requirements-dev.txt has all; requirements.txt, where there is one, what the project needs to run."""
    files = BUILT_IN / name / "files"
    whole = ["--group", "dev", "pyproject.toml", "-o", str(files / "requirements-dev.txt"), "--upgrade"]
    subprocess.run([*UV, *UV_OUTPUT, *whole], cwd=place, check=True, stdout=subprocess.DEVNULL)
    if (files / "requirements.txt").exists():
        run = ["--constraint", str(files / "requirements-dev.txt"), "pyproject.toml", "--upgrade"]
        output = ["-o", str(files / "requirements.txt")]
        subprocess.run([*UV, *UV_OUTPUT, *run, *output], cwd=place, check=True, stdout=subprocess.DEVNULL)


def lock_npm(name: str, place: Path) -> None:
    (place / "package-lock.json").unlink()
    subprocess.run(NPM, cwd=place, check=True, stdout=subprocess.DEVNULL)
    lock = json.loads((place / "package-lock.json").read_text())
    lock["name"] = lock["packages"][""]["name"] = "@@name@@"
    target = BUILT_IN / name / "files" / "package-lock.json"
    target.write_text(json.dumps(lock, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
