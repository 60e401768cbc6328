"""Starts the sandbox host as a test wants it: `python -m tests.workflow.sandbox.run_host root|user UID`.

`user` gives up root for good before the host's code runs, as if an ordinary user had started it. In both, an import
after the host has its final rights is an error, as it is where the interpreter lies in a folder that the sandbox user
cannot enter.
"""

import importlib.abc
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from shared.config import load_settings
from shared.log import configure_logging
from shared.net.guard import Guard, resolve_host
from workflow.sandbox import cgroups, egress, ground, host, inside, sandboxes


class NoMoreImports(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        os.write(2, f"imported too late: {name}\n".encode())
        raise ImportError(f"{name} is imported too late", name=name)


class _Names:
    """A resolver double: each name has a list of answers, and the last one is repeated."""

    def __init__(self, answers: dict[str, list[list[str]]]) -> None:
        self._answers = answers

    async def __call__(self, host: str, port: int) -> list[str]:
        if host not in self._answers:
            return await resolve_host(host, port)
        print(f"resolved {host}", file=sys.stderr)
        answers = self._answers[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


def main() -> int:
    mode, uid = sys.argv[1], int(sys.argv[2])
    settings = load_settings()
    configure_logging(settings.log, "sandbox-host")
    os.umask(0o077)
    ground.PROGRAM_PATH = os.environ.get("TEST_PROGRAM_PATH", ground.PROGRAM_PATH)
    host.TRY_AGAIN_SECONDS = 1
    inside.START_SECONDS = float(os.environ.get("TEST_START_SECONDS", inside.START_SECONDS))
    sandboxes.PLACE_SECONDS = float(os.environ.get("TEST_PLACE_SECONDS", sandboxes.PLACE_SECONDS))
    sandboxes.TASK_GRACE = float(os.environ.get("TEST_TASK_GRACE", sandboxes.TASK_GRACE))
    if "TEST_NAMES" in os.environ:
        names = _Names(json.loads(os.environ["TEST_NAMES"]))
        egress.Guard = partial(Guard, resolve=names)  # type: ignore[assignment, attr-defined]
    if "TEST_BROKEN_GROUPS" in os.environ:
        cgroups.prepare = lambda uid: cgroups.Groups("A", Path("/nowhere"))
    if mode == "user" and os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    serve = host.serve

    def serve_and_import_no_more(*arguments: Any) -> Any:
        sys.meta_path.insert(0, NoMoreImports())
        return serve(*arguments)

    host.serve = serve_and_import_no_more  # type: ignore[assignment]
    host.run(settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
