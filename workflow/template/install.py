"""`python -m workflow.template.install [NAME...]`: gets what templates depend on, for sandboxes without a network.

Each template's packages get a folder of their own, which local sandboxes see read-only. Only what the template's lock
file pins by hash gets in, and no script of a package is run.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from shared.config import load_settings
from shared.errors import AppError
from workflow.sandbox.bwrap import find_python
from workflow.template.template import SETUP_PROGRAMS, Template
from workflow.template.templates import Templates, load_templates

SECONDS = 600
"""For one template's packages."""
PRINT_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


class NotInstalled(Exception):
    """Why a template's packages are not there, and what to do."""


def install(template: Template, folder: Path) -> bool:
    """Whether there was something to do. Raises NotInstalled; then the folder is as it was."""
    needed, name = template.manifest.dependencies, template.installed_name
    if needed is None or name is None:
        return False
    python, version = _inner_python()
    target, kept = folder / name, f"python{version}" if needed.kind == "python" else "node_modules"
    if (target / kept).is_dir():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as made:
        fresh = Path(made) / name
        packages = fresh / kept
        fresh.mkdir()
        if needed.kind == "python":
            _install_python(template, needed.lock, packages, python, version)
        else:
            _install_npm(template, packages)
        (fresh / "setup").write_bytes((SETUP_PROGRAMS / f"{needed.kind}.sh").read_bytes())
        (fresh / "setup").chmod(0o755)
        if target.exists():  # with the packages for another Python, which projects may use
            packages.rename(target / packages.name)
        else:
            fresh.rename(target)
    return True


def _inner_python() -> tuple[str, str]:
    """The interpreter of the sandboxes, and its version."""
    found = find_python()
    if found is None:
        raise NotInstalled("there is no Python for sandboxes: apt install python3")
    return found[0], _run([found[0], "-I", "-c", PRINT_VERSION]).strip()


def _install_python(template: Template, lock: str, target: Path, python: str, version: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        write_default(template, Path(place))
        options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile"]
        command = [sys.executable, "-m", "pip", "install", *options, "--python-version", version, "--target"]
        _run([*command, str(target), "-r", lock], place)
    _run([python, "-I", "-m", "compileall", "-q", str(target)])


def _install_npm(template: Template, target: Path) -> None:
    if not shutil.which("npm"):
        raise NotInstalled("it needs Node.js 20.19 or later with npm (apt install nodejs npm); then try again")
    with tempfile.TemporaryDirectory() as place:
        write_default(template, Path(place))
        _run(["npm", "ci", "--ignore-scripts", "--include=dev", "--no-audit", "--no-fund"], place)
        shutil.move(Path(place) / "node_modules", target)


def write_default(template: Template, place: Path) -> None:
    """The project as it comes out with the defaults: package managers read more of it than the lock."""
    for file in template.render(template.values({})):
        path = place / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)


def _run(command: list[str], place: str | None = None) -> str:
    """Its output. Raises NotInstalled with the end of what it said."""
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"{command[0]} took more than {SECONDS} s: is a package registry within reach?") from error
    if done.returncode:
        raise NotInstalled(f"{' '.join(command[:4])} … failed:\n{(done.stdout + done.stderr).strip()[-2000:]}")
    return done.stdout


def chosen(templates: Templates, names: list[str]) -> list[Template]:
    """Those of the names, or all. Exits for an unknown name."""
    if unknown := [name for name in names if name not in templates.names]:
        sys.exit(f"No such template: {', '.join(unknown)}. There are: {', '.join(templates.names)}.")
    return [template for template in templates if not names or template.name in names]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "scripts/templates", description="Gets what templates depend on, for sandboxes without a network."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="templates; none: all")
    parser.add_argument("--data", metavar="FOLDER", help="the data folder")
    options = parser.parse_args(arguments)
    if options.data:
        os.environ["TRUNKLINE__DATA"] = options.data
    os.umask(0o022)  # the sandboxes' user is to read it
    try:
        settings = load_settings()
        templates = chosen(load_templates(settings.templates.folder), options.names)
    except AppError as error:
        sys.exit(error.detail)
    return max([_report(template, settings.template_packages) for template in templates])


def _report(template: Template, folder: Path) -> int:
    """Says on stdout how it went; 0 where it went well."""
    status = 0
    try:
        told = "installed" if install(template, folder) else "nothing to install"
    except NotInstalled as error:
        told, status = f"NOT installed: {error}", 1
    print(f"{template.name}: {told}", flush=True)  # noqa: T201 - a program's answer
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
