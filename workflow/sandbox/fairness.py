"""Keeps many processes from outweighing few, where no control group shares out the processors (tier C).

The kernel shares them by thread, and before that by session where sched_autogroup is on, so that a sandbox with a
hundred at work would get a hundred shares. Those at work get the nice value with which all of them weigh about as much
as one; a crowd, which would still delay others by its turns, gets only what nobody else wants (SCHED_IDLE). Neither is
ever taken back, as only root may do that, but a sandbox's next command begins without it.
"""

import contextlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

STEP = 1.25
"""By this factor two neighbouring nice values differ in weight (the kernel's sched_prio_to_weight)."""
LOWEST = 19
CROWD = 4
"""So many threads at work for each processor are more than any build begins."""
AT_WORK = "R"


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    session: int
    at_work: Sequence[int]
    """Of its threads."""


def nice_of(number: int) -> int:
    """With which so many threads weigh about as much as one."""
    return min(LOWEST, round(math.log(max(number, 1), STEP)))


def even_out(pids: Iterable[int]) -> bool:
    """Of one sandbox, without its own programs. True: there is more to be done, and soon."""
    processes = {each.pid: each for pid in pids if (each := _look(pid))}
    busy = [each for each in processes.values() if each.at_work]
    number = sum(len(each.at_work) for each in busy)
    nice, idle = nice_of(number), number > CROWD * len(os.sched_getaffinity(0))
    if nice == 0:
        return False
    own = os.getpriority(os.PRIO_PROCESS, 0)  # that the host was started with, and the sandbox by it
    for each in busy:
        for thread in (*each.at_work, *_ancestors(each, processes)):
            _lower(thread, min(LOWEST, own + nice), idle)
    sessions = {each.session: each.pid for each in busy}
    return not _lower_sessions(sessions.values(), nice_of(len(sessions)))


def _look(pid: int) -> _Process | None:
    """None: it has ended."""
    with contextlib.suppress(OSError):
        state, parent, _, session, *more = _stat(Path(f"/proc/{pid}/stat"))
        threads = int(more[13])
        at_work = [pid] if state == AT_WORK else []
        return _Process(pid, int(parent), int(session), at_work if threads == 1 else list(_threads_at_work(pid)))
    return None


def _threads_at_work(pid: int) -> Iterator[int]:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            if _stat(thread / "stat")[0] == AT_WORK:
                yield int(thread.name)


def _stat(path: Path) -> list[str]:
    """From the state on (proc_pid_stat(5)): a program's name may hold anything."""
    return path.read_bytes().rpartition(b") ")[2].decode().split()


def _ancestors(process: _Process, processes: dict[int, _Process]) -> Iterator[int]:
    """Those who begin what is at work: what they begin next inherits from them."""
    while parent := processes.get(process.parent):
        yield parent.pid
        process = parent


def _lower(thread: int, nice: int, idle: bool) -> None:
    with contextlib.suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, thread) < nice:
            os.setpriority(os.PRIO_PROCESS, thread, nice)
        if idle and os.sched_getscheduler(thread) != os.SCHED_IDLE:
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def _lower_sessions(pids: Iterable[int], nice: int) -> bool:
    """Whether that is done. The kernel takes ten such changes a second from those who are not root: heaviest first."""
    weights = sorted((present, pid) for pid in pids if (present := _session_nice(pid)) is not None and present < nice)
    for _, pid in weights:
        try:
            Path(f"/proc/{pid}/autogroup").write_text(str(nice))
        except BlockingIOError:
            return False
        except OSError:  # it has ended
            continue
    return True


def _session_nice(pid: int) -> int | None:
    """None: it has ended, or this kernel knows no such thing."""
    try:
        return int(Path(f"/proc/{pid}/autogroup").read_text().rpartition(" ")[2])
    except (OSError, ValueError):
        return None
