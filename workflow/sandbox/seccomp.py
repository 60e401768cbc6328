"""The system calls that a sandbox may not make, as the classic BPF program that bubblewrap loads (--seccomp FD).

Everything that is not named here is allowed: the namespaces keep a process in, and this filter keeps it from the parts
of the kernel that no ordinary program needs and that most escapes went through. It is assembled here so that nothing
else (libseccomp) must be installed. See seccomp(2), and linux/filter.h for the instructions.
"""

import errno
import platform
import struct
from dataclasses import dataclass, field

# (x86_64, aarch64); None: the architecture has no such call
REFUSED: dict[str, tuple[int | None, int | None]] = {
    # other views of the file system
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "move_mount": (429, 429),
    "open_tree": (428, 428), "mount_setattr": (442, 442), "open_by_handle_at": (304, 265), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "fanotify_init": (300, 262), "swapon": (167, 224), "swapoff": (168, 225),
    # new namespaces
    "unshare": (272, 97), "setns": (308, 268),
    # the kernel's own machinery
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142), "acct": (163, 89),
    "syslog": (103, 116), "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None),
    # other processes' memory and files; ptrace stays, for debuggers
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438),
}  # fmt: skip
# Memory that no process need have mapped: where only mapped memory can be counted, it must not exist.
UNCOUNTED: dict[str, tuple[int, int]] = {
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186),
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
}  # fmt: skip

FILTERED = {"clone": (56, 220), "clone3": (435, 435), "ioctl": (16, 29), "socket": (41, 198), "socketpair": (53, 199)}
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag that clone(2) takes
TTY_REQUESTS = (0x5412, 0x541C)  # TIOCSTI and TIOCLINUX type into somebody's terminal
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
ERRNO = 0x00050000
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data


@dataclass
class Assembler:
    """Classic BPF with labels. A jump goes on to the next instruction where it names no label."""

    code: list[tuple[int, int, str | None, str | None]] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    def label(self, name: str) -> None:
        self.labels[name] = len(self.code)

    def load(self, offset: int) -> None:
        self.code.append((LOAD, offset, None, None))

    def jump(self, kind: int, value: int, then: str | None = None, otherwise: str | None = None) -> None:
        self.code.append((kind, value, then, otherwise))

    def give(self, result: int) -> None:
        self.code.append((RETURN, result, None, None))

    def assemble(self) -> bytes:
        """struct sock_filter, one after the other. Raises struct.error where a jump is longer than 255."""
        return b"".join(
            struct.pack("<HBBI", kind, self._distance(at, then), self._distance(at, otherwise), value)
            for at, (kind, value, then, otherwise) in enumerate(self.code)
        )

    def _distance(self, at: int, label: str | None) -> int:
        return 0 if label is None else self.labels[label] - at - 1


def build_filter(*, refuse_uncounted_memory: bool, machine: str | None = None) -> bytes:
    """The program for this machine's architecture. Raises KeyError where there is none for it."""
    machine = machine or platform.machine()
    audit, column = AUDIT[machine], list(AUDIT).index(machine)
    program = Assembler()
    program.load(ARCHITECTURE)
    program.jump(JUMP_EQUAL, audit, otherwise="kill")
    program.load(NUMBER)
    if machine == "x86_64":
        program.jump(JUMP_AT_LEAST, 0x40000000, then="unknown")  # the x32 numbers name the same calls once more
    for name, label in (("clone3", "unknown"), ("clone", "clone"), ("ioctl", "ioctl"), ("socket", "socket")):
        program.jump(JUMP_EQUAL, FILTERED[name][column], then=label)
    program.jump(JUMP_EQUAL, FILTERED["socketpair"][column], then="socketpair")
    if refuse_uncounted_memory:  # as if the kernel had no such call: then programs take another way
        for numbers in UNCOUNTED.values():
            program.jump(JUMP_EQUAL, numbers[column], then="unknown")
    for number in (numbers[column] for numbers in REFUSED.values()):
        if number is not None:
            program.jump(JUMP_EQUAL, number, then="refuse")
    program.label("allow")
    program.give(ALLOW)
    _arguments(program)
    for label, result in (("refuse", errno.EPERM), ("unknown", errno.ENOSYS), ("family", errno.EAFNOSUPPORT)):
        program.label(label)
        program.give(ERRNO | result)
    program.label("kill")
    program.give(KILL_PROCESS)
    return program.assemble()


def _arguments(program: Assembler) -> None:
    """The calls that are refused by what they ask for. Every such argument is an int: the low half says it all."""
    program.label("clone")  # clone3 keeps its flags in memory, where a filter cannot look: libc falls back to clone
    program.load(_argument(0))
    program.jump(JUMP_ANY_BIT, NEW_NAMESPACES, then="refuse")
    program.give(ALLOW)
    program.label("ioctl")
    program.load(_argument(1))
    for request in TTY_REQUESTS:
        program.jump(JUMP_EQUAL, request, then="refuse")
    program.give(ALLOW)
    program.label("socketpair")
    program.load(_argument(0))
    program.jump(JUMP_EQUAL, AF_UNIX, otherwise="family")
    program.give(ALLOW)
    program.label("socket")  # AF_VSOCK ignores network namespaces, and AF_ALG, AF_PACKET, AF_XDP are rich in bugs
    program.load(_argument(0))
    program.jump(JUMP_EQUAL, AF_NETLINK, then="netlink")
    for family in (AF_UNIX, AF_INET):
        program.jump(JUMP_EQUAL, family, then="accept")
    program.jump(JUMP_EQUAL, AF_INET6, otherwise="family")
    program.label("accept")
    program.give(ALLOW)
    program.label("netlink")  # NETLINK_ROUTE only: `ip` and getifaddrs need it
    program.load(_argument(2))
    program.jump(JUMP_EQUAL, 0, otherwise="family")
    program.give(ALLOW)


def _argument(index: int) -> int:
    return ARGUMENTS + 8 * index
