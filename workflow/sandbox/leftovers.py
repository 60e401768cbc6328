"""Workspaces that nobody has used for long: whose they are, and their removal. The host asks no Redis; workers do."""

import asyncio
import contextlib
import os
import secrets
import time
from pathlib import Path

from shared.ids import THREAD_ID

OWNER = ".redis"
DOOMED = ".doomed"


class Leftovers:
    """`notes`: the folder of what the host keeps of each sandbox, beside the workspaces."""

    def __init__(self, workspaces: Path, notes: Path) -> None:
        self._workspaces = workspaces
        self._notes = notes

    def claim(self, thread_id: str, redis: str) -> None:
        """The thread is one of that Redis, and was used now. "": of none that could tell that it is gone."""
        if redis:
            self._notes.mkdir(mode=0o700, exist_ok=True)
            (self._notes / f"{thread_id}{OWNER}").write_text(redis)

    def unused(self, redis: str, seconds: float) -> list[str]:
        """Threads of that Redis that were not used for so long and have a workspace here."""
        found = [path.name.removesuffix(OWNER) for path in self._notes.glob(f"*{OWNER}")]
        return [thread_id for thread_id in found if self.is_unused(thread_id, redis, seconds)]

    def is_unused(self, thread_id: str, redis: str, seconds: float) -> bool:
        owner = self._notes / f"{thread_id}{OWNER}"
        with contextlib.suppress(OSError):
            old = time.time() - owner.stat().st_mtime > seconds
            return bool(THREAD_ID.fullmatch(thread_id)) and old and owner.read_text() == redis
        return False

    async def remove(self, thread_id: str) -> None:
        """Nothing may run in it. From here on it is as if it had never been, even if we end before all is deleted."""
        with contextlib.suppress(FileNotFoundError):
            (self._workspaces / thread_id).rename(self._notes / f"{secrets.token_hex(8)}{DOOMED}")
        for path in self._notes.glob(f"{thread_id}.*"):
            path.unlink(missing_ok=True)
        for doomed in self._notes.glob(f"*{DOOMED}"):
            await _delete(doomed)


async def _delete(folder: Path) -> None:
    """By programs: the tree may be as deep as it likes, and closed to its owner."""
    for program in (("chmod", "-R", "u+rwx"), ("rm", "-rf")):
        process = await asyncio.create_subprocess_exec(
            *program, "--", os.fspath(folder), env={"PATH": "/usr/bin:/bin"}, stderr=asyncio.subprocess.DEVNULL
        )
        await process.wait()
