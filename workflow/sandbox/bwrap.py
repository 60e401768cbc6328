"""A sandbox as bubblewrap makes it: the argument list, the files that it gets by descriptor, the start.

Nothing of the host shows inside: bubblewrap's own process there (pid 1) keeps its environment and command line readable
in /proc, so it gets an empty environment and its arguments through a descriptor.
"""

import contextlib
import io
import marshal
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import MAGIC_NUMBER
from pathlib import Path

from shared.config import SandboxSettings
from workflow.sandbox.base import TEMPLATES, WORKSPACE
from workflow.sandbox.sandboxd_commands import SHELL_START, TELL_FOLDER

HOME = "/home/user"
ARCHIVE = "/run/sandboxd/sandboxd.pyz"
INSIDE_PATH = "/usr/local/bin:/usr/bin:/bin"
# Never all of /etc: only what programs need to find libraries, certificates, names and the time.
ETC = (
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "pki",
    "protocols",
    "services",
    "ssl",
)
ETC_DATA = {
    "passwd": b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/bash\n",
    "group": b"root:x:0:\nuser:x:1000:\n",
    "hosts": b"127.0.0.1 localhost sandbox\n::1 localhost\n",
    "resolv.conf": b"",
}
# Folders in memory, and the share of the sandbox's memory that each may take.
TMPFS = {"/tmp": 1 / 4, "/run": 1 / 64, HOME: 1 / 4}  # noqa: S108 - the sandbox's own
SHM_SHARE = 1 / 16
CPU_GRACE = 5  # seconds from SIGXCPU to SIGKILL
UNCHECKED = (1).to_bytes(4, "little")  # the flag of a .pyc that is not compared with its source (PEP 552)
INSIDE_MODULES = (
    *("frames", "sandboxd", "sandboxd_commands", "sandboxd_files", "sandboxd_ledger", "sandboxd_listening"),
    *("sandboxd_parts", "sandboxd_ports", "sandboxd_remote", "sandboxd_supervisor", "sandboxd_text"),
    *("sandboxd_transfer", "sandboxd_write"),
)


@dataclass(frozen=True, slots=True)
class Profile:
    """What every sandbox of this host has in common; made once, while files can still be read (host.py)."""

    program: str
    python: str
    extra_folders: tuple[str, ...]
    archive: bytes
    shell_start: bytes
    seccomp: bytes
    memory_bytes: int
    templates: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Started:
    """A bubblewrap that has been started: its process, our ends of the link and of the channel by which descriptors
    come out, and what it says on stderr.
    """

    process: subprocess.Popen[bytes]
    link: socket.socket
    channel: socket.socket
    errors: io.FileIO

    def complaint(self) -> str:
        """What bubblewrap wrote so far; it writes only when it fails."""
        return (self.errors.read(4096) or b"").decode(errors="replace").strip()


def find_python() -> tuple[str, tuple[str, ...]] | None:
    """The interpreter to use inside, and the folders it needs besides /usr; None where there is none."""
    for path in ("/usr/bin/python3", "/usr/local/bin/python3"):
        if os.access(path, os.X_OK):
            return path, ()
    prefix = sys.base_prefix
    own = f"{prefix}/bin/python3"
    return (own, (prefix,)) if os.access(own, os.X_OK) else None


def shell_start(settings: SandboxSettings) -> bytes:
    """What bash reads before a command (BASH_ENV): its limits, and the note of where it ends.

    The processor limit is set here because it would end sandboxd too; the soft one gives SIGXCPU, which tells why. 500
    makes the kernel, when memory is short, take commands before sandboxd.
    """
    return (
        "unset BASH_ENV\n"
        f"ulimit -S -t {settings.cpu_seconds}; ulimit -H -t {settings.cpu_seconds + CPU_GRACE}\n"
        f"builtin echo 500 2>/dev/null >/proc/self/oom_score_adj\n{TELL_FOLDER}"
    ).encode()


def build_archive() -> bytes:
    """sandboxd and what it imports, as an archive that Python runs.

    Compiled too, which saves 8 ms at each start; where the inner Python is of another version it takes the sources.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, source in _sources():
            archive.writestr(f"{name}.py", source)
            code = marshal.dumps(compile(source, f"{ARCHIVE}/{name}.py", "exec"))
            archive.writestr(f"{name}.pyc", MAGIC_NUMBER + UNCHECKED + bytes(8) + code)
    return buffer.getvalue()


_MAIN = b"""import sys

if sys.argv[1] == "transfer":
    from workflow.sandbox.sandboxd_transfer import main
elif sys.argv[1] == "remote":
    from workflow.sandbox.sandboxd_remote import main
else:
    from workflow.sandbox.sandboxd import main
main()
"""


def _sources() -> Iterator[tuple[str, bytes]]:
    yield "__main__", _MAIN
    yield from (("workflow/__init__", b""), ("workflow/sandbox/__init__", b""))
    for module in INSIDE_MODULES:
        yield f"workflow/sandbox/{module}", Path(__file__).with_name(f"{module}.py").read_bytes()


def start(profile: Profile, workspace: Path) -> Started:
    """Starts a sandbox; must run in the thread that lives as long as the host, for bubblewrap dies with it.

    Raises OSError when bubblewrap itself cannot be run.
    """
    ours, theirs = socket.socketpair()
    channel, their_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    with contextlib.ExitStack() as stack:
        stack.callback(theirs.close)
        stack.callback(their_channel.close)
        stack.callback(os.close, write_end)
        arguments, fds = _arguments(profile, workspace, stack)
        args_fd = _memfd(b"".join(argument.encode() + b"\0" for argument in arguments), stack)
        command = [profile.program, "--args", str(args_fd), "--", profile.python, "-I", "-S", ARCHIVE]
        try:
            process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(their_channel.fileno())],
                env={},
                pass_fds=(*fds, args_fd, theirs.fileno(), their_channel.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=write_end,
                start_new_session=True,  # a Ctrl-C at the host's terminal is not for the sandboxes
            )
        except OSError:
            ours.close()
            channel.close()
            os.close(read_end)
            raise
    return Started(process, ours, channel, io.FileIO(read_end, "r"))


def _arguments(profile: Profile, workspace: Path, stack: contextlib.ExitStack) -> tuple[list[str], list[int]]:
    fds: list[int] = []

    def data(content: bytes, path: str) -> Iterator[str]:
        fds.append(_memfd(content, stack))
        yield from ("--perms", "0444", "--ro-bind-data", str(fds[-1]), path)

    fds.append(_memfd(profile.seccomp, stack))
    seccomp_fd = str(fds[-1])
    arguments = [
        *_NAMESPACES,
        *_ENVIRONMENT,
        *_environment(profile.environment),
        *_system_folders(profile.extra_folders),
    ]
    for name in ETC:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for name, content in ETC_DATA.items():
        arguments += data(content, f"/etc/{name}")
    arguments += ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys"]
    # without a tmpfs of its own in it, /dev would be one as large as half the machine's memory, and writable
    arguments += ["--dev", "/dev", *_tmpfs("/dev/shm", SHM_SHARE * profile.memory_bytes), "--remount-ro", "/dev"]  # noqa: S108
    for path, share in TMPFS.items():
        arguments += _tmpfs(path, share * profile.memory_bytes)
    arguments += [*data(profile.archive, ARCHIVE), *data(profile.shell_start, SHELL_START)]
    if profile.templates and _is_there(profile.templates):
        arguments += ["--ro-bind-try", str(profile.templates), TEMPLATES]
    arguments += ["--bind", str(workspace), WORKSPACE, "--chdir", WORKSPACE, "--seccomp", seccomp_fd]
    return [*arguments, "--remount-ro", "/"], fds


def _is_there(folder: Path) -> bool:
    """A folder that was removed while it is mounted still has its name here, but no link."""
    try:
        return folder.stat().st_nlink > 0
    except FileNotFoundError:
        return False


_NAMESPACES = (
    *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try"),
    *("--uid", "1000", "--gid", "1000", "--hostname", "sandbox", "--disable-userns", "--assert-userns-disabled"),
    *("--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"),
)
_ENVIRONMENT = (
    *("--setenv", "PATH", INSIDE_PATH, "--setenv", "HOME", HOME, "--setenv", "USER", "user"),
    *("--setenv", "LANG", "C.UTF-8", "--setenv", "TERM", "dumb", "--setenv", "SHELL", "/bin/bash"),
    *("--setenv", "TMPDIR", "/tmp"),  # noqa: S108
)


def _environment(variables: Mapping[str, str]) -> Iterator[str]:
    for name, value in variables.items():
        yield from ("--setenv", name, value)


def _system_folders(extra: tuple[str, ...]) -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr", "--dir", "/etc")
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/") / name
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))
    for folder in extra:
        yield from ("--ro-bind", folder, folder)


def disk_usage_command(profile: Profile, workspace: Path) -> list[str]:
    """Prints the bytes of a workspace's files, and in a second line their number.

    By `du`, for the tree may be hostile: deep, wide, changing. With the right to read every folder, in a user namespace
    that has no other right: a folder that its owner made unreadable would hide what is in it.
    """
    rights = ("--unshare-user", "--unshare-net", "--cap-drop", "ALL", "--cap-add", "CAP_DAC_READ_SEARCH")
    folders = (*_system_folders(profile.extra_folders), "--ro-bind", str(workspace), WORKSPACE)
    script = f"du -sx --block-size=1 {WORKSPACE}; du -sx --inodes {WORKSPACE}"
    return [profile.program, *rights, "--die-with-parent", *folders, "--", "/bin/sh", "-c", script]


def _tmpfs(path: str, size: float) -> list[str]:
    return ["--perms", "1777", "--size", str(int(size)), "--tmpfs", path]


def _memfd(content: bytes, stack: contextlib.ExitStack) -> int:
    fd = os.memfd_create("argument", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def explain(complaint: str) -> str:
    """Why sandboxes cannot be made here, and what to do about it, from what the kernel or bubblewrap said."""
    for sign, cause, cure in _CAUSES:
        if sign in complaint:
            return f"Sandboxes are unavailable: {cause} ({complaint}). {cure}"
    return f"Sandboxes are unavailable: {complaint or 'bubblewrap ended without a word'}."


_NAMESPACES_CURE = (
    "In a container, allow user namespaces by the seccomp profile in deploy/. On Ubuntu 24.04 and later, give bwrap "
    "an AppArmor profile with the rule `userns,` or set kernel.apparmor_restrict_unprivileged_userns=0. Elsewhere see "
    "that user.max_user_namespaces is above 0 and that kernel.unprivileged_userns_clone is 1."
)
_CAUSES = (
    (
        "No such file or directory: '/",
        "bubblewrap is not installed",
        "Install it (`apt install bubblewrap`, `dnf install bubblewrap`) and restart the sandbox host.",
    ),
    (
        "Unknown option",
        "bubblewrap is too old",
        "Version 0.8 or later is needed: Debian 12, Ubuntu 24.04, Fedora 38 have it.",
    ),
    ("RTM_NEWADDR", "the kernel refuses a network namespace", _NAMESPACES_CURE),
    ("uid map", "the kernel refuses a user namespace", _NAMESPACES_CURE),
    ("namespace", "the kernel refuses new namespaces", _NAMESPACES_CURE),
    ("Can't mount proc", "the container hides parts of /proc", _NAMESPACES_CURE),
    (
        "execvp",
        "the sandbox has no Python",
        "Install Python 3.9 or later as /usr/bin/python3 (`apt install python3`) and restart the sandbox host.",
    ),
)
