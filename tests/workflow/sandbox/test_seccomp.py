"""The system call filter: run by a small interpreter for both processors, and by the kernel in a sandbox."""

import errno
import json
import platform
import re
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.workflow.sandbox.support import Box, Host
from workflow.sandbox import seccomp
from workflow.sandbox.base import FileWrite
from workflow.sandbox.seccomp import AUDIT, FILTERED, REFUSED, UNCOUNTED, build_filter

MACHINES = sorted(AUDIT)
EPERM = seccomp.ERRNO | errno.EPERM
ENOSYS = seccomp.ERRNO | errno.ENOSYS
NO_FAMILY = seccomp.ERRNO | errno.EAFNOSUPPORT


def judge(
    machine: str, number: int, arguments: Sequence[int] = (), *, audit: int | None = None, tight: bool = True
) -> int:
    """What the filter says to a system call, as the kernel would compute it."""
    code = build_filter(refuse_uncounted_memory=tight, machine=machine)
    padded = [argument & 2**64 - 1 for argument in (*arguments, *[0] * 6)][:6]
    data = struct.pack("<iIQ6Q", number, audit or AUDIT[machine], 0, *padded)
    at = accumulator = 0
    while True:
        kind, then, otherwise, value = struct.unpack_from("<HBBI", code, 8 * at)
        at += 1
        if kind == seccomp.RETURN:
            return int(value)
        if kind == seccomp.LOAD:
            (accumulator,) = struct.unpack_from("<I", data, value)
            continue
        holds = {
            seccomp.JUMP_EQUAL: accumulator == value,
            seccomp.JUMP_AT_LEAST: accumulator >= value,
            seccomp.JUMP_ANY_BIT: bool(accumulator & value),
        }[kind]
        at += then if holds else otherwise


@pytest.mark.parametrize("machine", MACHINES)
def test_every_refused_call_is_refused_and_its_neighbours_are_not(machine: str) -> None:
    column = list(AUDIT).index(machine)
    refused = {numbers[column] for numbers in REFUSED.values()} - {None}
    uncounted = {numbers[column] for numbers in UNCOUNTED.values()}
    filtered = {numbers[column] for numbers in FILTERED.values()}
    for number in range(600):
        if number in refused:
            assert judge(machine, number) == EPERM
        elif number in uncounted:
            assert judge(machine, number) == ENOSYS
            assert judge(machine, number, tight=False) == seccomp.ALLOW
        elif number not in filtered:
            assert judge(machine, number) == seccomp.ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_are_judged_by_their_arguments(machine: str) -> None:
    number = {name: numbers[list(AUDIT).index(machine)] for name, numbers in FILTERED.items()}
    assert judge(machine, number["clone3"]) == ENOSYS
    assert judge(machine, number["clone"], [0x003D0F00]) == seccomp.ALLOW  # a thread
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert judge(machine, number["clone"], [flag | 17]) == EPERM
    assert judge(machine, number["ioctl"], [0, 0x5401]) == seccomp.ALLOW
    for request in (0x5412, 0x541C, 0x5412 | 1 << 40):  # the kernel looks at the low half only, and so must we
        assert judge(machine, number["ioctl"], [0, request]) == EPERM
    for family in (1, 2, 10):
        assert judge(machine, number["socket"], [family, 1, 5]) == seccomp.ALLOW
    assert judge(machine, number["socket"], [16, 3, 0]) == seccomp.ALLOW
    assert judge(machine, number["socket"], [16, 3, 9]) == NO_FAMILY
    for family in (0, 3, 9, 17, 31, 38, 40, 44, 2**32 - 1):
        assert judge(machine, number["socket"], [family]) == NO_FAMILY
    assert judge(machine, number["socketpair"], [1]) == seccomp.ALLOW
    assert judge(machine, number["socketpair"], [2]) == NO_FAMILY


def test_calls_of_another_architecture_end_the_process() -> None:
    assert judge("x86_64", 165, audit=0x40000003) == seccomp.KILL_PROCESS  # i386, where 165 is another call
    assert judge("x86_64", 0x40000000 | 165) == ENOSYS  # x32
    assert judge("aarch64", 165, audit=AUDIT["x86_64"]) == seccomp.KILL_PROCESS


def test_there_is_no_filter_for_an_unknown_processor() -> None:
    with pytest.raises(KeyError, match="vax"):
        build_filter(refuse_uncounted_memory=True, machine="vax")


@pytest.mark.parametrize(
    ("header", "column", "pattern"),
    [
        ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 0, r"__NR_(\w+)\s+(\d+)"),
        ("/usr/include/asm-generic/unistd.h", 1, r"__NR(?:3264)?_(\w+)\s+(\d+)"),
    ],
)
def test_the_numbers_are_those_of_the_kernels_headers(header: str, column: int, pattern: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"no {header} on this machine (Debian: linux-libc-dev)")
    known = {name: int(number) for name, number in re.findall(pattern, Path(header).read_text())}
    for name, numbers in {**REFUSED, **UNCOUNTED, **FILTERED}.items():
        if name in known:  # an older header lacks the newest
            assert numbers[column] == known[name], name


CALL_ALL = """
import ctypes, json
libc = ctypes.CDLL(None, use_errno=True)
def call(number):
    ctypes.set_errno(0)
    return ctypes.get_errno() if libc.syscall(number, *[ctypes.c_long(-1)] * 6) == -1 else 0
print(json.dumps({name: call(number) for name, number in NUMBERS.items()}))
"""


async def test_the_kernel_refuses_every_one_of_them_in_a_sandbox(host: Host, box: Box) -> None:
    """With arguments that no call would take, so that nothing happens if one gets through."""
    column = list(AUDIT).index(platform.machine())
    numbers = {name: numbers[column] for name, numbers in REFUSED.items() if numbers[column] is not None}
    uncounted = {name: numbers[column] for name, numbers in UNCOUNTED.items()}
    script = CALL_ALL.replace("NUMBERS", repr({**numbers, **uncounted}))
    told = json.loads(await box.text(f"python3 -c '{script.replace(chr(39), chr(34))}'"))
    assert {name: told[name] for name in numbers} == dict.fromkeys(numbers, errno.EPERM)
    if "tier C" in (host.health() or {})["limits"]:
        assert {name: told[name] for name in uncounted} == dict.fromkeys(uncounted, errno.ENOSYS)


async def test_nobody_can_type_into_a_terminal(box: Box) -> None:
    code = 'import fcntl, os; m, s = os.openpty(); fcntl.ioctl(s, 0x5412, b"x")'
    assert "Operation not permitted" in await box.text(f"python3 -c '{code}'")


async def test_ordinary_programs_work_under_it(box: Box) -> None:
    code = (
        "import threading, multiprocessing as m, socket, subprocess, ssl\n"
        "t = threading.Thread(target=print, args=(1,)); t.start(); t.join()\n"
        "with m.Pool(2) as p: print(p.map(abs, [-2, -3]))\n"
        's = socket.create_server(("127.0.0.1", 0)); socket.create_connection(s.getsockname()); print(4)\n'
        'print(subprocess.run(["echo", "5"], capture_output=True).stdout)\n'
    )
    await box.sandbox.write([_file("program.py", code)], box.key(), 1, b"")
    assert await box.text("python3 program.py") == "1\n[2, 3]\n4\nb'5\\n'\n"
    assert await box.text("python3 -m venv --without-pip v && v/bin/python -c 'print(6)'; getent passwd user") == (
        "6\nuser:x:1000:1000::/home/user:/bin/bash\n"
    )


def _file(path: str, text: str) -> FileWrite:
    return FileWrite(path, text.encode())
