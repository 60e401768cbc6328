"""What a sandbox was ever asked to do, on disk: so that a restarted host can tell "it was lost" from "it never began".

One JSON line for each beginning, written before it. Not synced to the disk: a host that is killed loses nothing, and
after a power cut the machine's boot id tells that lines may be missing.
"""

import json
from pathlib import Path
from typing import TextIO

from shared.types import JSON

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def run_of(key: str) -> str:
    return key.partition("/")[0]


class Journal:
    """`earlier` are the keys of former lives of the host, `epochs` the newest epoch of each run."""

    def __init__(self, path: Path) -> None:
        self.earlier: set[str] = set()
        self.epochs: dict[str, int] = {}
        self.tasks: set[str] = set()
        self._runs: set[str] = set()  # of this life
        self._boot = _BOOT_ID.read_text().strip()
        self._may_lack_lines = False
        self.is_new = not path.exists()
        self._file: TextIO = path.open("a+", encoding="utf-8")
        self._load()
        self._file.write("\n")  # ends a line that the host was killed in the middle of
        self._append({"boot": self._boot})

    def close(self) -> None:
        self._file.close()

    def begin(self, key: str, epoch: int) -> None:
        self._append({"key": key, "epoch": epoch})
        self._runs.add(run_of(key))

    def task(self, task_id: str) -> None:
        self._append({"task": task_id})
        self.tasks.add(task_id)

    def cannot_tell(self, key: str) -> bool:
        """Whether a key that this life of the host did not begin may have begun in an earlier one."""
        return key in self.earlier or (self._may_lack_lines and run_of(key) not in self._runs)

    def _append(self, line: JSON) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._file.flush()

    def _load(self) -> None:
        self._file.seek(0)
        boot = self._boot
        for text in self._file:
            try:
                line = json.loads(text)
            except ValueError:
                continue  # cut off: what it announces had not begun
            boot = line.get("boot", boot)
            if "task" in line:
                self.tasks.add(line["task"])
            if "key" in line:
                run = run_of(line["key"])
                self.earlier.add(line["key"])
                self.epochs[run] = max(line["epoch"], self.epochs.get(run, 0))
        self._may_lack_lines = boot != self._boot
