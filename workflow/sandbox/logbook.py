"""What a sandbox was ever asked to do, on disk: so that a restarted host can tell "it was lost" from "it never began".

One JSON line for each beginning, written before it. Not synced to the disk: a host that is killed loses nothing, and
after a power cut the machine's boot id tells that lines may be missing. The file is open only while a line is written,
for a host remembers many more sandboxes than it may hold files.
"""

import json
from pathlib import Path

from shared.types import JSON

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def run_of(key: str) -> str:
    return key.partition("/")[0]


class Logbook:
    """`begun` are the keys of all that began, in this life of the host or another; `epochs` each run's newest epoch."""

    def __init__(self, path: Path) -> None:
        self.begun: set[str] = set()
        self.epochs: dict[str, int] = {}
        self.tasks: set[str] = set()
        self._runs: set[str] = set()  # of this life
        self._path = path
        boot = boot_id()
        self._may_lack_lines = path.exists() and self._load() != boot
        self._append("\n")  # ends a line that the host was killed in the middle of
        self._add({"boot": boot})

    def begin(self, key: str, epoch: int) -> None:
        self._add({"key": key, "epoch": epoch})
        self.begun.add(key)
        self._runs.add(run_of(key))

    def forget(self, key: str) -> None:
        """It had no effect, and may begin again in this life."""
        self.begun.discard(key)

    def task(self, task_id: str) -> None:
        self._add({"task": task_id})
        self.tasks.add(task_id)

    def cannot_tell(self, key: str) -> bool:
        """Whether something may have begun with a key of which nobody knows more."""
        return key in self.begun or (self._may_lack_lines and run_of(key) not in self._runs)

    def _add(self, line: JSON) -> None:
        self._append(json.dumps(line, separators=(",", ":")) + "\n")

    def _append(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)

    def _load(self) -> str | None:
        """The boot that its last lines are of."""
        boot = None
        for text in self._path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue  # cut off: what it announces had not begun
            boot = line.get("boot", boot)
            if "task" in line:
                self.tasks.add(line["task"])
            if "key" in line:
                run = run_of(line["key"])
                self.begun.add(line["key"])
                self.epochs[run] = max(line["epoch"], self.epochs.get(run, 0))
        return boot
