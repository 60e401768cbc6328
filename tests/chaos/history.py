"""What happened when, in order: printed, and written down for whoever looks into a failure."""

import json
import time
from pathlib import Path
from typing import Any


class History:
    """`path`: one JSON object a line, `at` in seconds of the wall clock."""

    def __init__(self, path: Path, *, quiet: bool = False) -> None:
        self.path = path
        self._quiet = quiet
        self._begun = time.time()
        self._file = path.open("a")

    def add(self, what: str, **fields: Any) -> None:
        now = time.time()
        self._file.write(json.dumps({"at": now, "what": what, **fields}, default=str) + "\n")
        self._file.flush()
        if not self._quiet and what != "job":
            told = " ".join(f"{name}={value}" for name, value in fields.items())
            print(f"{now - self._begun:7.1f} {what} {told}", flush=True)

    def close(self) -> None:
        self._file.close()
