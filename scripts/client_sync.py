"""`python -m scripts.client_sync` writes trunkline/sync, the client for blocking code, from trunkline/aio."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE, TARGET = ROOT / "trunkline" / "aio", ROOT / "trunkline" / "sync"
HEADER = "# Made by scripts/client_sync.py from trunkline/aio: change that.\n"

FIRST_PARTY = 'lint.isort.known-first-party = ["trunkline"]'  # also while trunkline/sync is being made
WORDS = [
    (r"from asyncio import sleep", "from time import sleep"),
    (r"async (def|with|for) ", r"\1 "),
    (r"await ", ""),
    (r"trunkline\.aio", "trunkline.sync"),
    (r"AsyncGenerator", "Generator"),
    (r"aclosing", "closing"),
    (r"__a(iter|enter|exit)__", r"__\1__"),
    (r"__anext__", "__next__"),
    (r"a(iter_bytes|read|close)(?=\()", r"\1"),
    (r"(Abstract)?Async(?=[A-Z])(\w+)", r"\1\2"),
    (r"async_(?=chunks_of)", ""),
]
FIXES = ("--select", "I,F401,C416,SIM117,UP028", "--fix-only", "--unsafe-fixes", "--config", FIRST_PARTY)
RULES = [(re.compile(rf"\b{word}"), sync) for word, sync in WORDS]


def blocking(source: str) -> str:
    """The same code without async, formatted."""
    for word, sync in RULES:
        source = word.sub(sync, source)
    source = _ruff("check", *FIXES, source=HEADER + source)
    return _ruff("format", source=source)


def written() -> dict[Path, str]:
    """What should stand in trunkline/sync."""
    return {TARGET / path.name: blocking(path.read_text()) for path in sorted(SOURCE.glob("*.py"))}


def _ruff(*arguments: str, source: str) -> str:
    ruff = Path(sys.executable).with_name("ruff")
    command = [str(ruff), *arguments, "--quiet", "--stdin-filename", str(TARGET / "module.py"), "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout


if __name__ == "__main__":
    TARGET.mkdir(exist_ok=True)
    for old in set(TARGET.glob("*.py")) - set(written()):
        old.unlink()
    for path, text in written().items():
        path.write_text(text)
