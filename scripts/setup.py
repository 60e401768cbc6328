"""Fills .venv from the locked requirement files named on the command line. Standard library only: it makes the rest.

uv installs in 3 s what takes pip 30 to 50 s (measured: 104 packages, 2 cores), but it reads none of pip's settings,
and those decide where packages may come from. So uv is told what pip is set to, and pip itself does the work where
uv cannot. Every file is a closure with hashes: whichever index answers, nothing else can get in.
"""

import ast
import fcntl
import os
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = str(VENV / "bin" / "python")
LOCK = ".setup.lock"  # not `.lock`: uv locks that one itself
SYSTEM_PACKAGES = {  # by list: program -> its package
    "runtime": {"bwrap": "bubblewrap", "rg": "ripgrep"},  # of the local sandbox
    "dev": {"chromium": "chromium"},  # of the tests that look at pages
}
# pip's setting -> uv's option. Hashes pin the files, so that looking through all indexes is safe.
UV_OPTIONS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
}
UV_VARIABLES = {"cert": "SSL_CERT_FILE", "proxy": "ALL_PROXY"}


def main(lists: list[str]) -> None:
    VENV.mkdir(exist_ok=True)
    with (VENV / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        install_system_packages(lists)
        if all(installed(name) for name in lists):
            return
        started = time.monotonic()
        say("Setting up Trunkline's Python environment in .venv ...")
        make_venv()
        pip_install("setup.txt")
        for name in lists:
            install(name)
        say(f"Done in {time.monotonic() - started:.0f} s.")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def stamp(name: str) -> Path:
    return VENV / ".installed" / name


def installed(name: str) -> bool:
    """Whether the list was installed here since it last changed (the same rule as in scripts/_setup)."""
    if not stamp(name).exists() or stamp(name).read_text() != str(ROOT):
        return False
    sources = [ROOT / "requirements" / f"{name}.txt", ROOT / "requirements" / "setup.txt", ROOT / "pyproject.toml"]
    return all(stamp(name).stat().st_mtime_ns > source.stat().st_mtime_ns for source in sources)


def make_venv() -> None:
    """Keeps the one that is there, whichever Python made it, as long as it runs: packages are one Python's."""
    if Path(PYTHON).exists() and subprocess.run([PYTHON, "-c", ""], check=False).returncode == 0:
        return
    for left in VENV.iterdir():
        if left.name != LOCK:
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    try:
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        apt_install_or_stop("python3-venv", error.stdout + error.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)


def apt_install_or_stop(package: str, reason: str) -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(
            f"Python cannot make a virtual environment:\n{reason}\nOn Debian or Ubuntu: sudo apt install {package}"
        )
    apt_install([package])


def install(name: str) -> None:
    started = time.time()
    if not uv_install("--no-deps", "--require-hashes", "-r", f"requirements/{name}.txt"):
        say(f"uv could not install requirements/{name}.txt; trying pip, which takes longer ...")
        pip_install(f"{name}.txt")
    if name == "runtime":
        editable = ["--no-deps", "--no-build-isolation", "--editable", "."]
        if not uv_install(*editable):
            subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", *editable], cwd=ROOT, check=True)
    stamp(name).parent.mkdir(exist_ok=True)
    stamp(name).write_text(str(ROOT))
    os.utime(stamp(name), (started, started))


def pip_install(file: str) -> None:
    """Stops everything when it fails: pip has said why."""
    options = ["-qq", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    command = [PYTHON, "-m", "pip", "install", *options, "-r", f"requirements/{file}"]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit("Installing the locked packages failed. Is this machine's pip set to an index that it can reach?")


def uv_install(*arguments: str, python: str = PYTHON) -> bool:
    """From the project's folder. Says on stderr what was wrong."""
    settings = pip_settings()
    command = [str(VENV / "bin" / "uv"), "pip", "install", "--quiet", "--python", python]
    if sys.dont_write_bytecode:
        # Else each start would compile LiteLLM anew, which takes seconds; Python itself keeps what it once compiled.
        command.append("--compile-bytecode")
    for name, option in UV_OPTIONS.items():
        for value in settings.get(name, "").split():
            command += [option, value]
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        command.append("--no-index")
    environment = dict(os.environ)
    for name, variable in UV_VARIABLES.items():
        if name in settings:
            environment.setdefault(variable, settings[name])
    command += ["--index-strategy", "unsafe-best-match", *arguments]
    try:
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0
    except OSError:
        return False


@cache
def pip_settings() -> dict[str, str]:
    """What pip's files and PIP_ variables set; the environment counts most, then [install], then [global]."""
    listing = subprocess.run([PYTHON, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    found = [line.split("=", 1) for line in listing.splitlines() if "=" in line]
    settings: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):
        for key, value in found:
            if key.startswith(section):
                settings[key.removeprefix(section)] = str(ast.literal_eval(value))
    return settings


def install_system_packages(lists: list[str]) -> None:
    needed = {program: package for name in lists for program, package in SYSTEM_PACKAGES.get(name, {}).items()}
    missing = [package for program, package in needed.items() if not shutil.which(program)]
    if not missing:
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        apt_install(missing)
    else:
        say(f"Missing: {' and '.join(missing)}. To install: sudo apt install {' '.join(missing)}")


def apt_install(packages: list[str]) -> None:
    say(f"Installing {' and '.join(packages)} ...")
    command = ["apt-get", "install", "--yes", "--no-install-recommends", "-qq", *packages]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0:
        return
    # The list of packages is empty or old.
    subprocess.run(["apt-get", "update", "-qq"], check=False)
    if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
        sys.exit(f"apt-get could not install {' '.join(packages)}: its words are above.")


if __name__ == "__main__":
    main(sys.argv[1:])
