"""From root to the sandbox user, with no way back.

The data folder may lie where that user cannot go (/root is 0700). So before the drop, what the host needs of it is
bound to where it is, in a mount namespace of the host's own: the first folder on the way that the user could not enter
is covered by an empty file system that holds nothing but that way. Nothing is lost by it, for the user could not see
what it covers.
"""

import contextlib
import ctypes
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from workflow.sandbox.base import SandboxUnavailable

PR_SET_PDEATHSIG, PR_GET_PDEATHSIG = 1, 2
CLONE_NEWNS = 0x20000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_SLAVE = 0x2, 0x4, 0x1000, 0x4000, 0x80000


def drop_to(uid: int, folder: Path, readable: Path | None = None) -> None:
    """Makes this process user and group `uid`, for good; `folder` (absolute, its own) stays within reach.

    `readable` does so too if that can be had. Raises SandboxUnavailable where it cannot; the rights are gone then, too.
    """
    libc, orphaned = ctypes.CDLL(None), ctypes.c_int()
    libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(orphaned))
    os.setgroups([])
    needed = {folder: os.R_OK | os.W_OK | os.X_OK}
    if readable:
        needed[readable] = os.R_OK | os.X_OK
    try:
        if closed := [path for path in needed if not _can_reach(uid, path, needed[path])]:
            _open_ways(closed)
        if not _can_reach(uid, folder, needed[folder]):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        if not _can_reach(uid, folder, needed[folder]):
            raise SandboxUnavailable(
                f"The sandbox user cannot use {folder}, and the way to it could not be opened ({error}). Put the "
                "workspaces where every user may go: set sandbox.root, for instance to /var/lib/trunkline/workspaces."
            ) from error
    finally:
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        # With the user the kernel forgets which signal a supervisor wants sent here when it dies.
        libc.prctl(PR_SET_PDEATHSIG, orphaned)


def _can_reach(uid: int, folder: Path, mode: int) -> bool:
    os.setegid(uid)
    os.seteuid(uid)
    try:
        return os.access(folder, mode, effective_ids=True)
    finally:
        os.seteuid(0)
        os.setegid(0)


def _open_ways(folders: Sequence[Path]) -> None:
    """Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(failed: int) -> None:
        if failed:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def mount(source: str, target: Path, kind: str | None, flags: int, options: str | None = None) -> None:
        texts = [text.encode() if text else None for text in (source, str(target), kind, options)]
        check(libc.mount(texts[0], texts[1], texts[2], flags, texts[3]))

    with contextlib.ExitStack() as stack:
        check(libc.unshare(CLONE_NEWNS))
        mount("none", Path("/"), None, MS_REC | MS_SLAVE)
        # all before the first cover, and in the new namespace: bind takes no other's mounts
        sources = [_opened(folder, stack) for folder in folders]
        umask = os.umask(0o022)  # the new ways are for the sandbox user to go
        for folder, source in zip(folders, sources, strict=True):
            if cover := _first_closed(folder):
                mount("tmpfs", cover, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=0755")
            folder.mkdir(parents=True, exist_ok=True)
            mount(f"/proc/self/fd/{source}", folder, None, MS_BIND)
        os.umask(umask)


def _opened(folder: Path, stack: contextlib.ExitStack) -> int:
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    stack.callback(os.close, fd)
    return fd


def _first_closed(folder: Path) -> Path | None:
    """The first folder on the way that others may not enter. None: the way is open as far as there is one."""
    for step in reversed(folder.parents):
        if not step.exists():
            return None
        if not step.stat().st_mode & 0o001:
            return step
    return None
