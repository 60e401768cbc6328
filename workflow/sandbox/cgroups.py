"""Control groups, where this machine lets us have some: exact limits of memory, and processors shared out by sandbox.

Tier A is cgroup v2 in a subtree delegated to us (systemd does that for a user's session, or Delegate=yes). Tier B is
cgroup v1, where root makes a folder for the sandbox uid before it drops its rights. Everything else is tier C
(watchdog.py). Processes are limited by RLIMIT_NPROC in every tier, which counts per sandbox.

All groups of sandboxes have the kernel's default weight. Without such a group each thread counts for itself, or, where
sched_autogroup is on, each session.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Group:
    """The control group of one sandbox; with version 1 it may have a second one, of the processors' hierarchy.

    `killed_before`: what its counter of kills stood at when it was taken.
    """

    folder: Path
    events: str
    processors: Path | None = None
    killed_before: int = 0

    def admit(self, pids: Iterable[int]) -> None:
        for pid in pids:
            for folder in self.folders:
                (folder / "cgroup.procs").write_text(str(pid))

    def kills(self) -> int:
        """How many processes the kernel has killed in it for want of memory."""
        with contextlib.suppress(OSError):
            fields = dict(line.split() for line in (self.folder / self.events).read_text().splitlines())
            return int(fields.get("oom_kill", 0)) - self.killed_before
        return 0

    def remove(self) -> None:
        """Only once its processes are gone."""
        for folder in self.folders:
            with contextlib.suppress(OSError):  # busy for a moment longer: whoever makes it again, or `sweep`, takes it
                folder.rmdir()

    @property
    def folders(self) -> list[Path]:
        return [self.folder, *([self.processors] if self.processors else [])]


@dataclass(frozen=True, slots=True)
class Groups:
    """The folder that a host makes its groups in; `processors`: likewise, of version 1's hierarchy of that name.

    `share_processors`: each group gets as much of them as any other.
    """

    tier: str
    folder: Path
    processors: Path | None = None
    share_processors: bool = False

    def create(self, name: str, memory_bytes: int) -> Group:
        """A group that an earlier sandbox of this name has left is taken over. Raises OSError."""
        events = "memory.events" if self.tier == "A" else "memory.oom_control"
        group = Group(self.folder / name, events, self.processors and self.processors / name)
        group.remove()
        try:
            for folder in group.folders:
                folder.mkdir(exist_ok=True)
            self._limit(group.folder, memory_bytes)
        except OSError:
            group.remove()
            raise
        return replace(group, killed_before=group.kills())

    def _limit(self, folder: Path, memory_bytes: int) -> None:
        if self.tier == "A":
            _limit(folder, "memory.max", memory_bytes)
            _limit(folder, "memory.swap.max", 0)
        else:
            _limit(folder, "memory.limit_in_bytes", memory_bytes)
            _limit(folder, "memory.memsw.limit_in_bytes", memory_bytes)


def _limit(folder: Path, name: str, value: int) -> None:
    """Where swap is not accounted, its file does not exist, and nothing is to be limited."""
    path = folder / name
    if "sw" not in name or path.exists():
        path.write_text(str(value))


def prepare(uid: int) -> Groups | None:
    """The groups that user `uid` may make from now on, None where there are none; to be called before the drop."""
    own = _own_groups()
    with contextlib.suppress(OSError, KeyError):
        return _version_1(own, uid) if "memory" in own else _version_2(own[""], uid)
    return None


def _own_groups() -> dict[str, str]:
    """Controller -> our group; "" is version 2."""
    groups = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path.strip("/")))
    return groups


def _version_1(own: Mapping[str, str], uid: int) -> Groups | None:
    if os.geteuid() != 0:
        return None
    memory, processors = _given_folder("memory", own, uid), None
    with contextlib.suppress(OSError, KeyError):
        processors = _given_folder("cpu", own, uid)
    return Groups("B", memory, processors, share_processors=processors is not None)


def _given_folder(controller: str, own: Mapping[str, str], uid: int) -> Path:
    folder = _new_folder(MOUNT / controller / own[controller], uid)
    os.chown(folder, uid, uid)
    return folder


def _version_2(own: str, uid: int) -> Groups | None:
    """A sibling of our own group, where the one above us belongs to the user: then we may also move processes there."""
    above = (MOUNT / own).parent
    delegated = (above / "cgroup.subtree_control").read_text().split()
    if "memory" not in delegated or above.stat().st_uid != uid:
        return None
    folder = _new_folder(above, uid)
    wanted = [name for name in ("cpu", "memory") if name in delegated]
    (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))
    return Groups("A", folder, share_processors="cpu" in delegated)


def _new_folder(above: Path, uid: int) -> Path:
    """This host's own, so that two on one machine keep out of each other's way; those of dead hosts are removed.

    A host that has dropped root cannot remove its own.
    """
    for old in above.glob(f"trunkline-{uid}.*"):
        if not Path("/proc", old.name.rpartition(".")[2]).exists():
            sweep(old)
    folder = above / f"trunkline-{uid}.{os.getpid()}"
    folder.mkdir(exist_ok=True)
    return folder


def sweep(folder: Path) -> None:
    """Removes the folder of a host that has ended, if its processes have too."""
    with contextlib.suppress(OSError):
        for group in folder.iterdir():
            if group.is_dir():
                group.rmdir()
        folder.rmdir()
