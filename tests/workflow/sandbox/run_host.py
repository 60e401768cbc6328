"""Starts the sandbox host as a test wants it: `python -m tests.workflow.sandbox.run_host root|user UID`.

`user` gives up root for good before the host's code runs, as if an ordinary user had started it. In both, an import
after the host has its final rights is an error, as it is where the interpreter lies in a folder that the sandbox user
cannot enter.
"""

import importlib.abc
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from shared.config import load_settings
from shared.log import configure_logging
from workflow.sandbox import host


class NoMoreImports(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        os.write(2, f"imported too late: {name}\n".encode())
        raise ImportError(f"{name} is imported too late", name=name)


def main() -> int:
    mode, uid = sys.argv[1], int(sys.argv[2])
    settings = load_settings()
    configure_logging(settings.log, "sandbox-host")
    os.umask(0o077)
    host.PROGRAM_PATH = os.environ.get("TEST_PROGRAM_PATH", host.PROGRAM_PATH)
    if mode == "user" and os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    find_ground = host.find_ground

    def find_ground_and_import_no_more(*arguments: object) -> object:
        sys.meta_path.insert(0, NoMoreImports())
        return find_ground(*arguments)  # type: ignore[arg-type]

    host.find_ground = find_ground_and_import_no_more  # type: ignore[assignment]
    host.run(settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
