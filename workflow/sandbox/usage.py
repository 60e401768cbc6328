"""What the processes of a sandbox use, read from the host's side of /proc: nothing here believes the sandbox.

The host may read it all: the processes have its uid, and it owns their user namespace.
"""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path

TMPFS_PATHS = ("tmp", "run", "home/user", "dev/shm")
_RESIDENT = re.compile(rb"^Rss(?:Anon|Shmem):\s+(\d+) kB$", re.MULTILINE)
_SHARE = re.compile(rb"^Pss_(?:Anon|Shmem):\s+(\d+) kB$", re.MULTILINE)


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, parents first. A daemon's parent is the sandbox's pid 1, so it is among them."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, children.read_bytes().split()):
                found += [child, *descendants(child)]
    return found


def kill_below(ancestor: int, pid: int) -> None:
    """SIGKILL, if `pid` is still below `ancestor`: its number may be another's by now, and that other is left alone."""
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            if pid in descendants(ancestor):
                signal.pidfd_send_signal(process, signal.SIGKILL)
        finally:
            os.close(process)


def resident_bytes(pid: int) -> int:
    """Its memory that is no file's; what it shares with others counts in full."""
    return _kilobytes(_RESIDENT, f"/proc/{pid}/status")


def memory_bytes(pids: Iterable[int], limit: int) -> int:
    """The memory of processes together. Exact only above `limit`: shared pages are told apart at some cost."""
    rough = sum(map(resident_bytes, pids))
    return rough if rough <= limit else sum(_kilobytes(_SHARE, f"/proc/{pid}/smaps_rollup") for pid in pids)


def _kilobytes(pattern: re.Pattern[bytes], path: str) -> int:
    try:
        return 1024 * sum(map(int, pattern.findall(Path(path).read_bytes())))
    except OSError:
        return 0  # it has ended


def tmpfs_bytes(pid: int) -> int:
    """What lies in the memory file systems that the process sees."""
    total = 0
    for path in TMPFS_PATHS:
        with contextlib.suppress(OSError):
            status = os.statvfs(f"/proc/{pid}/root/{path}")
            total += (status.f_blocks - status.f_bfree) * status.f_frsize
    return total


def deleted_bytes(pids: Iterable[int], device: int) -> int:
    """Disk space of files that have no name any more but are held open."""
    blocks: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in os.scandir(f"/proc/{pid}/fd"):
                status = fd.stat()
                if status.st_nlink == 0 and status.st_dev == device:
                    blocks[status.st_ino] = status.st_blocks
    return 512 * sum(blocks.values())


async def disk_usage(command: Sequence[str]) -> tuple[int, int]:
    """Bytes and number of a workspace's files, by `bwrap.disk_usage_command`. Raises OSError."""
    process = await asyncio.create_subprocess_exec(
        *command, env={}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    numbers = [int(line.split()[0]) for line in output.splitlines()]
    if len(numbers) != 2:
        raise OSError(f"du gave no answer: {errors.decode(errors='replace').strip()[:500]}")
    return numbers[0], numbers[1]
