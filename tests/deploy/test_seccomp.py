"""deploy/seccomp.json lets bubblewrap work, and little else that a container's usual profile refuses."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from workflow.sandbox.seccomp import ALLOW, AUDIT, ERRNO, FILTERED, REFUSED, Assembler

ROOT = Path(__file__).resolve().parents[2]
NEEDED_BY_BUBBLEWRAP = {"mount", "umount2", "pivot_root", "unshare"}

# Gives up root and loads the filter that stands in a file, as an engine does for a container without new privileges.
LOADER = """
import ctypes, os, struct, sys, warnings
program = open(sys.argv[1], "rb").read()
if os.geteuid() == 0:
    os.setgroups([]), os.setresgid(64000, 64000, 64000), os.setresuid(64000, 64000, 64000)
code = ctypes.create_string_buffer(program, len(program))
header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, header):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[2], sys.argv[2:])
"""


def refused() -> set[str]:
    profile = json.loads((ROOT / "deploy/seccomp.json").read_text())
    assert profile["defaultAction"] == "SCMP_ACT_ALLOW"
    return {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ERRNO" for name in rule["names"]}


def test_what_a_sandbox_may_not_do_its_host_may_not_either_but_for_what_bubblewrap_needs() -> None:
    assert set(REFUSED) - refused() == NEEDED_BY_BUBBLEWRAP
    assert not refused() & set(FILTERED)


@pytest.mark.skipif(platform.machine() not in AUDIT, reason="the filter is assembled for x86_64 and aarch64 only")
def test_bubblewrap_works_under_the_profile_without_any_privilege(tmp_path: Path) -> None:
    program = tmp_path / "filter"
    program.write_bytes(_assemble(refused() & set(REFUSED)))
    namespaces = [f"--unshare-{kind}" for kind in ("user", "pid", "net", "ipc", "uts")]
    inside = ["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"]
    inside += ["--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    bwrap = ["bwrap", *namespaces, "--disable-userns", "--cap-drop", "ALL", *inside]
    command = ["grep", "Seccomp:", "/proc/self/status"]
    done = subprocess.run(
        [sys.executable, "-c", LOADER, program, *bwrap, *command], capture_output=True, text=True, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == ["Seccomp:", "2"]


def _assemble(names: set[str]) -> bytes:
    place = list(AUDIT).index(platform.machine())
    program = Assembler()
    program.load(0)
    for name in sorted(names):
        number = REFUSED[name][place]
        if number is not None:
            program.jump(0x15, number, "refuse")
    program.give(ALLOW)
    program.label("refuse")
    program.give(ERRNO | 1)
    return program.assemble()
