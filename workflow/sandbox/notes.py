"""What each `write` left for whoever asks with its key again. On disk, so that it outlives the host."""

import hashlib
import logging
from pathlib import Path

from workflow.sandbox.logbook import boot_id

log = logging.getLogger("trunkline.sandbox")

MAX_NOTES = 64  # a note is asked for by the attempt right after a crash, so few are enough


class Notes:
    """The newest of one sandbox, each in a file of its own under the boot that it was written in.

    They are not synced to the disk, and neither is what they tell of: after a reboot none counts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._boot = boot_id().encode()
        by_age = sorted(folder.glob("*"), key=lambda path: path.stat().st_mtime_ns)
        self._names = dict.fromkeys(path.name for path in by_age)

    def keep(self, key: str, note: bytes) -> None:
        """Where the disk takes no more, it is as with one that is too old."""
        name = _name(key)
        temporary = self._folder / f"{name}.new"
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            temporary.write_bytes(self._boot + b"\n" + note)
            temporary.replace(self._folder / name)
        except OSError:
            log.exception("the note of %s could not be kept", key)
            return
        self._names[name] = None
        while len(self._names) > MAX_NOTES:
            oldest = next(iter(self._names))
            del self._names[oldest]
            (self._folder / oldest).unlink(missing_ok=True)

    def get(self, key: str) -> bytes | None:
        """None: it is not known, or no longer."""
        if _name(key) not in self._names:
            return None
        boot, _, note = (self._folder / _name(key)).read_bytes().partition(b"\n")
        return note if boot == self._boot else None


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
