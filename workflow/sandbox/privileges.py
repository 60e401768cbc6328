"""From root to the sandbox user, with no way back.

The data folder may lie where that user cannot go (/root is 0700). So before the drop, the workspaces are bound to
where they are, in a mount namespace of the host's own: the first folder on the way that the user could not enter is
covered by an empty file system that holds nothing but that way. Nothing is lost by it, for the user could not see what
it covers.
"""

import ctypes
import os
from pathlib import Path

from workflow.sandbox.base import SandboxUnavailable

PR_SET_PDEATHSIG, PR_GET_PDEATHSIG = 1, 2
CLONE_NEWNS = 0x20000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_SLAVE = 0x2, 0x4, 0x1000, 0x4000, 0x80000


def drop_to(uid: int, folder: Path) -> None:
    """Makes this process user and group `uid`, for good; `folder` (absolute, its own) stays within reach.

    Raises SandboxUnavailable where it cannot; the rights are gone then, too.
    """
    libc, orphaned = ctypes.CDLL(None), ctypes.c_int()
    libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(orphaned))
    os.setgroups([])
    try:
        if not _can_reach(uid, folder):
            _open_way(folder, _first_closed(folder))
    finally:
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        # With the user the kernel forgets which signal a supervisor wants sent here when it dies.
        libc.prctl(PR_SET_PDEATHSIG, orphaned)


def _can_reach(uid: int, folder: Path) -> bool:
    os.setegid(uid)
    os.seteuid(uid)
    try:
        return os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True)
    finally:
        os.seteuid(0)
        os.setegid(0)


def _open_way(folder: Path, cover: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source: str, target: Path, kind: str | None, flags: int, options: str | None = None) -> int:
        texts = [text.encode() if text else None for text in (source, str(target), kind, options)]
        return int(libc.mount(texts[0], texts[1], texts[2], flags, texts[3]))

    fd = None
    try:
        failed = libc.unshare(CLONE_NEWNS) or mount("none", Path("/"), None, MS_REC | MS_SLAVE)
        if not failed:
            fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)  # in the new namespace: bind takes no other's mounts
            failed = mount("tmpfs", cover, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=0755")
        if not failed:
            umask = os.umask(0o022)  # the new way is for the sandbox user to go
            folder.mkdir(parents=True)
            os.umask(umask)
            failed = mount(f"/proc/self/fd/{fd}", folder, None, MS_BIND)
    finally:
        if fd is not None:
            os.close(fd)
    if failed:
        raise SandboxUnavailable(
            f"The sandbox user cannot enter {cover}, and the way to {folder} could not be opened for it "
            f"({os.strerror(ctypes.get_errno())}). Put the workspaces where every user may go: set sandbox.root, "
            "for instance to /var/lib/trunkline/workspaces."
        )


def _first_closed(folder: Path) -> Path:
    """The first folder on the way that others may not enter."""
    for step in reversed(folder.parents):
        if not step.stat().st_mode & 0o001:
            return step
    raise SandboxUnavailable(f"The sandbox user cannot write in {folder}: set sandbox.root to another folder.")
