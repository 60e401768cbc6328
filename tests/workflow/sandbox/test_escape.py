"""What an agent's code must not be able to do, tried in a real sandbox: as started by root, and by an ordinary user.

Memory and disk have hosts with small limits of their own: test_limits.py. The system calls: test_seccomp.py.
"""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.waiting import until
from tests.workflow.sandbox.conftest import SECRET
from tests.workflow.sandbox.support import Box, Host, new_box
from workflow.sandbox.base import ExecStatus, FileError, FileMissing, FileWrite, NotRegular
from workflow.sandbox.local import LocalProvider
from workflow.sandbox.usage import descendants


async def test_reading_the_hosts_passwords_finds_no_file(box: Box) -> None:
    assert "No such file" in await box.text("cat /etc/shadow; ls /root")
    assert "root:x:0:0::/root" in await box.text("cat /etc/passwd")
    assert await box.text("ls /home") == "user\n"


async def test_the_hosts_environment_is_in_no_process(box: Box) -> None:
    assert await box.text("wc -c < /proc/1/environ") == "0\n"
    assert SECRET not in await box.text("cat /proc/*/environ | tr '\\0' '\\n'; env")


async def test_the_hosts_paths_are_in_no_command_line_and_no_descriptor(host: Host, box: Box) -> None:
    seen = await box.text(
        "cat /proc/*/cmdline | tr '\\0' ' '; timeout 2 cat /proc/[12]/fd/* 2>/dev/null; ls -l /proc/[12]/fd"
    )
    assert "/run/sandboxd/sandboxd.pyz" in seen
    assert str(host.data) not in seen
    assert "memfd" not in seen


@pytest.mark.parametrize("path", ["/usr/x", "/x", "/etc/x", "/dev/x", "/bin/x", "/proc/x", "/run/sandboxd/start.sh"])
async def test_system_folders_cannot_be_written(box: Box, path: str) -> None:
    result = await box.run(f"echo x > {path}")
    assert result.exit_code == 1


@pytest.mark.parametrize("name", ["kernel/core_pattern", "vm/swappiness", "kernel/hostname"])
async def test_the_kernels_settings_cannot_be_changed(box: Box, name: str) -> None:
    setting = Path("/proc/sys", name)
    before = setting.read_text()
    text = await box.text(f"echo 1 > /proc/sys/{name}; sysctl -w {name.replace('/', '.')}=1")
    assert "Read-only file system" in text
    assert setting.read_text() == before


async def test_a_nested_user_namespace_is_refused(box: Box) -> None:
    text = await box.text("unshare -Ur id; unshare -m id; nsenter -U -t 1 id")
    assert text.count("Operation not permitted") == 3
    assert "uid=" not in text


async def test_mounting_is_refused(box: Box) -> None:
    text = await box.text("mount -t tmpfs x /tmp; mount --bind /usr /tmp; umount /proc; pivot_root / /tmp; chroot / id")
    assert "uid=" not in text
    assert await box.text("mount -t tmpfs x /tmp 2>/dev/null; echo $?") != "0\n"


async def test_a_fork_bomb_stays_within_the_process_limit_and_can_be_ended(host: Host, box: Box) -> None:
    bomb = await box.run("f() { f | f & }; f; sleep 60", timeout_seconds=1.5)
    limit = host.settings.sandbox.processes
    assert bomb.task_id
    assert limit / 2 < max(len(descendants(pid)) for pid in host.processes()) <= limit + 2
    await box.kill(bomb)
    assert await box.text("echo alive") == "alive\n"


async def test_memory_files_are_of_limited_size(box: Box) -> None:
    for folder in ("/dev/shm", "/tmp", "/run", "/home/user"):
        text = await box.text(f"dd if=/dev/zero of={folder}/fill bs=1M count=600 2>&1; rm {folder}/fill")
        assert "No space left" in text


@pytest.fixture
def loopback_server() -> Iterator[int]:
    """Stands for the Redis of the host."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def test_servers_on_the_hosts_loopback_cannot_be_reached(box: Box, loopback_server: int) -> None:
    text = await box.text(f"echo PING > /dev/tcp/127.0.0.1/{loopback_server}")
    assert "Connection refused" in text


async def test_there_is_no_way_to_the_network(box: Box) -> None:
    text = await box.text(
        "for h in 1.1.1.1 169.254.169.254 10.0.0.1; do echo > /dev/tcp/$h/80; done; ls /sys/class/net"
    )
    assert text.count("Network is unreachable") == 6


async def test_abstract_unix_sockets_of_the_host_cannot_be_reached(box: Box) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0trunkline-test-abstract")
        server.listen()
        code = 'import socket; socket.socket(socket.AF_UNIX).connect("\\0trunkline-test-abstract")'
        assert "ConnectionRefusedError" in await box.text(f"python3 -c '{code}'")


@pytest.mark.parametrize("family", ["VSOCK", "PACKET", "ALG", "BLUETOOTH", "CAN", "TIPC", "QIPCRTR"])
async def test_socket_families_that_ignore_network_namespaces_are_refused(box: Box, family: str) -> None:
    code = f"import socket; socket.socket(socket.AF_{family}, socket.SOCK_DGRAM)"
    assert "[Errno 97]" in await box.text(f"python3 -c '{code}'")


async def test_of_netlink_only_routes_are_to_be_had(box: Box) -> None:
    code = "import socket; socket.socket(16, 3, {}); print(1)"
    assert await box.text(f"python3 -c '{code.format(0)}'") == "1\n"
    assert "[Errno 97]" in await box.text(f"python3 -c '{code.format(9)}'")


async def test_links_lead_file_tools_nowhere_outside(host: Host, box: Box) -> None:
    await box.run(
        "ln -s /etc/shadow shadow; ln -s / root; ln -s ../../../../../../etc up; mkfifo pipe; ln -s /dev/zero zero"
    )
    for path in ("shadow", "root/etc/shadow", "../../../../etc/shadow", "up/shadow", "root/root"):
        with pytest.raises(FileMissing):
            await box.sandbox.read(path)
    for path in ("pipe", "zero", "/dev/zero", "/proc"):
        with pytest.raises(NotRegular):
            await box.sandbox.read(path)
    assert {entry.path for entry in (await box.sandbox.list("root")).entries} >= {"workspace", "usr", "proc"}
    assert not any(entry.path == "root" for entry in (await box.sandbox.list("/")).entries)


async def test_writing_through_a_link_changes_nothing_outside(host: Host, box: Box) -> None:
    outside = host.data / "outside"
    outside.write_text("as it was")
    outside.chmod(0o666)
    await box.run(f"ln -s {outside} link; ln -s {host.data} folder")
    for path in ("link", "folder/outside", str(outside)):
        await box.sandbox.write([FileWrite(path, b"changed")], box.key(), 1, b"")  # in the sandbox's own /tmp
    assert outside.read_text() == "as it was"
    outside.unlink()
    with pytest.raises(FileError):
        await box.sandbox.write([FileWrite("/usr/lib/x", b"changed")], box.key(), 1, b"")


async def test_daemons_and_the_deaf_end_with_their_command(host: Host, box: Box) -> None:
    survivors = """
    trap '' TERM HUP INT
    setsid sleep 61 &
    (setsid bash -c 'trap "" TERM; sleep 62; sleep 62' & )
    nohup sleep 63 &
    sleep 64
    """
    result = await box.run(survivors, timeout_seconds=0.5)
    assert result.task_id
    await until(lambda: _sleepers(host) == {"sleep 61", "sleep 62", "sleep 63", "sleep 64"})
    task = await box.kill(result)
    assert task.status is ExecStatus.KILLED
    assert _sleepers(host) == set()


async def test_a_child_that_keeps_the_output_open_does_not_keep_the_call(host: Host, box: Box) -> None:
    async with asyncio.timeout(30):
        result = await box.run("sleep 68 & setsid sleep 69 & echo on", timeout_seconds=30)
    assert (result.status, result.exit_code, result.output.head) == (ExecStatus.EXITED, 0, "on\n")


def _sleepers(host: Host) -> set[str]:
    return {line.strip() for line in host.processes().values() if line.startswith(("sleep 6", "sleep 7"))}


async def test_another_sandbox_cannot_be_seen(provider: LocalProvider, box: Box) -> None:
    other = await new_box(provider)
    await other.run("echo theirs > secret; sleep 66", background=True)
    assert "sleep 66" not in await box.text("ps -ef")
    assert "secret" not in await box.text("ls -A / /workspace /tmp /home/user")
    assert other.run_id.partition(".")[0] not in await box.text("cat /proc/*/cmdline; ls -R /run")
    await box.run("kill -9 -1")
    [task] = await other.sandbox.tasks()
    assert task.status is ExecStatus.RUNNING
    await other.sandbox.kill_task("bg_1", other.key(), 1)


# Asks for the descriptors of sandboxd and of pid 1 (pidfd_getfd), as a debugger may.
TAKE_OVER = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for pid in (1, 2):
    process = os.pidfd_open(pid)
    print(sum(libc.syscall(438, process, number, 0) >= 0 for number in range(64)))
"""


async def test_the_descriptors_of_our_program_cannot_be_taken(box: Box) -> None:
    await box.sandbox.write([FileWrite("take_over.py", TAKE_OVER.encode())], box.key(), 1, b"")
    assert await box.text("python3 take_over.py") == "0\n0\n"


async def test_nothing_can_be_typed_into_a_terminal(box: Box) -> None:
    """A descriptor that is not there tells the filter (EPERM) from the kernel (EBADF); a pty of one's own is real."""
    code = """
import fcntl, os, termios
def type_into(fd):
    try:
        fcntl.ioctl(fd, termios.TIOCSTI, b"x")
    except OSError as error:
        os.write(out, b"%d\\n" % error.errno)
out = os.dup(1)
type_into(999)
_, mine = os.openpty()
if not os.fork():
    os.login_tty(mine)
    type_into(0)
    os._exit(0)
os.wait()
"""
    await box.sandbox.write([FileWrite("type_into.py", code.encode())], box.key(), 1, b"")
    assert await box.text("python3 type_into.py") == "1\n1\n"


async def test_hard_links_lead_nowhere_outside(box: Box) -> None:
    assert "Invalid cross-device link" in await box.text("ln /usr/bin/env mine; ln -L /etc/ssl/openssl.cnf mine")


@pytest.mark.parametrize("mode", ["root", "user"])
async def test_killing_the_host_ends_every_sandbox(mode: str) -> None:
    if mode == "root" and os.geteuid() != 0:
        pytest.skip("only root can start the host as root")
    with Host(mode) as host:
        provider = LocalProvider(host.settings)
        for _ in range(2):
            box = await new_box(provider)
            await box.run("trap '' TERM; setsid sleep 71 & sleep 72", background=True)
        await until(lambda: len(_sleepers(host)) == 2)
        inside = list(host.processes())
        host.kill()
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in inside))
        await provider.close()
