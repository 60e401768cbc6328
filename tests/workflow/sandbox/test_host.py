"""The host as a process: who is let in, how it ends, what it remembers, what it says where it cannot isolate."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from shared.config import SandboxSettings, Settings
from shared.errors import ErrorCode
from shared.ids import new_thread_id
from tests.support.ports import free_port
from tests.support.waiting import until
from tests.workflow.sandbox.support import ROOT, Box, Host, new_box
from workflow.sandbox import connection as module
from workflow.sandbox.base import FileError, FileWrite, SandboxLost, SandboxRefused, SandboxUnavailable
from workflow.sandbox.connection import HostConnection
from workflow.sandbox.local import LocalProvider

MODE = "root" if os.geteuid() == 0 else "user"


@pytest.fixture
def own_host() -> Iterator[Host]:
    """One that a test may end."""
    with Host(MODE) as host:
        yield host


@pytest.fixture
async def own_provider(own_host: Host) -> AsyncIterator[LocalProvider]:
    provider = LocalProvider(own_host.settings)
    yield provider
    await provider.close()


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic x"}])
async def test_without_the_token_nobody_is_let_in(host: Host, header: dict[str, str]) -> None:
    url = f"{host.settings.sandbox.host_url}/sandboxes/{new_thread_id()}/acquire"
    async with httpx.AsyncClient(headers=header) as client:
        assert (await client.post(url, content=b"{}")).status_code == 401
        assert (await client.post(url.replace("acquire", "nosuch"))).status_code == 401


async def test_a_client_with_another_token_is_told_what_to_do(host: Host, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("wrong")
    sandbox = host.settings.sandbox.model_copy(update={"token_file": token})
    provider = LocalProvider(host.settings.model_copy(update={"sandbox": sandbox}))
    with pytest.raises(SandboxUnavailable, match="does not take the token"):
        await provider.acquire(new_thread_id(), None)
    await provider.close()


def test_the_token_is_for_its_owner_only(host: Host) -> None:
    assert host.settings.sandbox_token_file.stat().st_mode & 0o777 == 0o600
    assert len(host.settings.sandbox_token_file.read_text()) > 30


async def test_workspaces_are_for_the_sandbox_user_only(host: Host, box: Box) -> None:
    await box.run("touch mine")
    for folder in (host.settings.workspaces, host.settings.workspaces / box.run_id.partition(".")[0]):
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder.stat().st_uid == (host.health() or {})["uid"] != 0


def test_the_host_is_not_root_while_it_serves(host: Host) -> None:
    status = Path(f"/proc/{host.process.pid}/status").read_text()
    uids, gids, groups, capabilities = (
        next(line.split()[1:] for line in status.splitlines() if line.startswith(name))
        for name in ("Uid:", "Gid:", "Groups:", "CapPrm:")
    )
    assert len(set(uids)) == len(set(gids)) == 1
    assert "0" not in uids + gids + groups
    assert capabilities == ["0000000000000000"]


@pytest.mark.parametrize("thread_id", ["..", "a/b", "x", ".host", "%2e%2e", "0" * 27])
async def test_only_thread_ids_name_a_sandbox(host: Host, thread_id: str) -> None:
    token = host.settings.sandbox_token_file.read_text()
    async with httpx.AsyncClient(base_url=host.settings.sandbox.host_url) as client:
        headers = {"authorization": f"Bearer {token}"}
        answer = await client.post(f"/sandboxes/{thread_id}/acquire", content=b"{}", headers=headers)
    assert answer.status_code in (404, 422)
    assert not (host.settings.workspaces / thread_id).exists() or thread_id in ("..", ".host")


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("exec", b"{}"),
        ("exec", b"not json"),
        ("exec", b'{"command": {"key": "k", "epoch": "x", "command": 5}}'),
        ("read", b'{"path": "", "offset": -1}'),
        ("write", b'{"key": "k"'),
        ("list", b"[]"),
    ],
)
async def test_malformed_requests_are_refused(host: Host, operation: str, body: bytes) -> None:
    token = host.settings.sandbox_token_file.read_text()
    url = f"{host.settings.sandbox.host_url}/sandboxes/{new_thread_id()}/{operation}"
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {token}"}) as client:
        answer = await client.post(url, content=body)
    assert answer.status_code == 400
    assert "malformed" in answer.json()["detail"]


async def test_a_restarted_host_keeps_files_and_says_what_is_lost(own_host: Host, own_provider: LocalProvider) -> None:
    box = await new_box(own_provider)
    thread_id, key, written, failed = box.run_id.partition(".")[0], box.key(), box.key(), box.key()
    await box.sandbox.write([FileWrite("kept", b"x")], written, 1, b"note")
    running = asyncio.create_task(box.run("echo begun > begun; sleep 60", key=key, timeout_seconds=0.5))
    await running
    own_host.kill()
    own_host.start()
    again = await own_provider.acquire(thread_id, box.sandbox.ref)
    assert "restarted" in str(again.notice)
    assert again.ref != box.sandbox.ref
    assert (await again.read("kept")).content == b"x"
    with pytest.raises(SandboxLost):
        await again.attach(key, 2, box.show)
    assert await again.recall(written, 2) == b"note"
    with pytest.raises(SandboxLost):
        await again.task_output("bg_1")
    assert await again.attach(failed, 2, box.show) is None
    assert (await own_provider.acquire(thread_id, again.ref)).notice is None
    result = await Box(again, thread_id).run("cat begun", key="another-run/1", background=True)
    assert result.task_id == "bg_2"


async def test_a_command_in_flight_when_the_host_is_killed_is_lost_not_repeated(
    own_host: Host, own_provider: LocalProvider
) -> None:
    box = await new_box(own_provider)
    running = asyncio.create_task(box.run("echo once >> log; sleep 60"))
    log = own_host.settings.workspaces / box.run_id.partition(".")[0] / "log"
    await until(log.exists)
    own_host.kill()
    await asyncio.to_thread(own_host.start)
    with pytest.raises(SandboxLost):
        await running
    assert log.read_text() == "once\n"


@pytest.mark.parametrize("under_a_command", [False, True])
async def test_whoever_holds_a_sandbox_hears_that_its_host_was_killed(
    own_host: Host, own_provider: LocalProvider, under_a_command: bool
) -> None:
    box = await new_box(own_provider)
    before = box.sandbox.ref
    await box.run("sleep 60", background=True)
    running = asyncio.create_task(box.run("echo on; sleep 60" if under_a_command else "echo on"))
    await until(lambda: box.shown == "on\n")
    own_host.kill()
    await asyncio.to_thread(own_host.start)
    await asyncio.wait([running])
    assert isinstance(running.exception(), SandboxLost if under_a_command else type(None))
    await box.run("true")
    assert "background tasks have ended. Its files are as they were." in str(box.sandbox.notice)
    assert box.sandbox.ref["host"] != before["host"]


async def test_a_connection_that_breaks_is_taken_up_again_where_it_broke(own_provider: LocalProvider) -> None:
    box = await new_box(own_provider)
    running = asyncio.create_task(box.run("for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done"))
    await until(lambda: "2\n" in box.shown)
    await _cut(box.sandbox._connection)
    assert (await running).output.head == box.shown == "1\n2\n3\n4\n5\n6\n"


async def test_a_connection_may_break_time_and_again_in_one_command(
    own_provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 1.5)
    box = await new_box(own_provider)
    running = asyncio.create_task(box.run("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.6; done"))
    for seen in ("2\n", "5\n"):
        await until(lambda seen=seen: seen in box.shown)
        await _cut(box.sandbox._connection)
    assert (await running).output.head == box.shown == "1\n2\n3\n4\n5\n6\n7\n8\n"


async def _cut(connection: HostConnection) -> None:
    for held in connection._client._transport._pool.connections:  # type: ignore[attr-defined]
        await held._connection._network_stream.aclose()


async def test_to_cancel_while_the_host_is_away_is_worth_another_try(
    own_host: Host, own_provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.1)
    box = await new_box(own_provider)
    own_host.kill()
    with pytest.raises(SandboxUnavailable) as unavailable:
        await box.sandbox.cancel(box.run_id, 1)
    assert unavailable.value.code is ErrorCode.SANDBOX_UNAVAILABLE
    own_host.start()
    await box.sandbox.cancel(box.run_id, 1)


async def test_sigterm_ends_every_process_and_tells_those_who_wait(own_host: Host, own_provider: LocalProvider) -> None:
    boxes = [await new_box(own_provider) for _ in range(3)]
    waiting = [asyncio.create_task(box.run("trap '' TERM; echo on; sleep 60")) for box in boxes]
    await until(lambda: all(box.shown for box in boxes))
    inside = list(own_host.processes())
    await asyncio.to_thread(own_host.stop)
    assert own_host.process.returncode == 0
    assert {(await task).killed_by for task in waiting} == {"the sandbox host is shutting down"}
    assert not any(Path(f"/proc/{pid}").exists() for pid in inside)


async def test_a_host_that_is_not_there_is_reported_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "sandbox-token").write_text("x")
    settings = Settings(data=tmp_path, sandbox=SandboxSettings(host_url=f"http://127.0.0.1:{free_port()}"))
    provider = LocalProvider(settings)
    with pytest.raises(SandboxUnavailable, match=r"workflow\.sandbox\.host") as unavailable:
        await provider.acquire(new_thread_id(), None)
    assert unavailable.value.code is ErrorCode.SANDBOX_UNAVAILABLE
    await provider.close()
    with pytest.raises(SandboxUnavailable, match="cannot be read"):
        await LocalProvider(Settings(data=tmp_path / "other")).acquire(new_thread_id(), None)


def test_a_port_in_use_is_an_error_that_names_the_setting(own_host: Host) -> None:
    data = Path(tempfile.mkdtemp())
    environ = {**os.environ, "TRUNKLINE__DATA": str(data)}
    environ["TRUNKLINE__SANDBOX__HOST_URL"] = own_host.settings.sandbox.host_url
    command = [sys.executable, "-m", "workflow.sandbox.host"]
    second = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30, check=False)
    shutil.rmtree(data)
    assert second.returncode == 1
    assert "sandbox.host_url" in second.stderr


@pytest.mark.parametrize(
    ("script", "told"),
    [
        pytest.param(None, "bubblewrap is not installed", id="missing"),
        pytest.param("echo 'bwrap: Unknown option --disable-userns' >&2; exit 1", "too old", id="old"),
        pytest.param("echo 'bwrap: setting up uid map: Permission denied' >&2", "apparmor_restrict", id="no uid map"),
        pytest.param("echo 'bwrap: loopback: Failed RTM_NEWADDR: x' >&2", "network namespace", id="no network"),
        pytest.param('while [ $1 != -- ]; do shift; done; shift; exec "$@"', "unavailable", id="isolating nothing"),
        pytest.param("exec sleep 100", "TimeoutError", id="hanging", marks=pytest.mark.slow),
    ],
)
async def test_where_it_cannot_isolate_the_host_refuses_with_cause_and_cure(script: str | None, told: str) -> None:
    """With something else in bubblewrap's place."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    if script is not None:
        (folder / "bwrap").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "bwrap").chmod(0o755)
    try:
        with Host(MODE, {"TEST_PROGRAM_PATH": str(folder)}) as host:
            provider = LocalProvider(host.settings)
            with pytest.raises(SandboxUnavailable) as unavailable:
                await provider.acquire(new_thread_id(), None)
            assert told in unavailable.value.detail
            health = host.health() or {}
            assert (health["status"], health["problem"]) == ("unavailable", unavailable.value.detail)
            await provider.close()
    finally:
        shutil.rmtree(folder)


def test_the_host_can_be_stopped_while_it_still_tries_to_isolate() -> None:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "bwrap").write_text("#!/bin/sh\nexec sleep 1000\n")
    (folder / "bwrap").chmod(0o755)

    def tries(host: Host) -> bool:
        return any("sleep" in line for line in host.processes().values())

    environ = {"TEST_PROGRAM_PATH": str(folder), "TEST_START_SECONDS": "1000"}
    with Host(MODE, environ, ready=tries) as host:
        tried = set(host.processes())
    assert not [pid for pid in tried if Path(f"/proc/{pid}").exists()]
    shutil.rmtree(folder)


async def test_sandboxes_become_available_once_the_cause_is_cured() -> None:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    with Host(MODE, {"TEST_PROGRAM_PATH": str(folder)}) as host:
        provider = LocalProvider(host.settings)
        with pytest.raises(SandboxUnavailable, match="not installed"):
            await provider.acquire(new_thread_id(), None)
        (folder / "bwrap").symlink_to("/usr/bin/bwrap")
        await until(lambda: (host.health() or {})["status"] == "ok")
        assert await (await new_box(provider)).text("echo alive") == "alive\n"
        await provider.close()
    shutil.rmtree(folder)


async def test_control_groups_that_do_not_work_are_no_reason_to_have_no_sandboxes() -> None:
    with Host(MODE, {"TEST_BROKEN_GROUPS": "1"}) as host:
        health = host.health() or {}
        assert (health["status"], health["limits"][:6]) == ("ok", "tier C")


def test_a_folder_of_somebody_else_is_refused_with_the_cure() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start the host as root")
    host = Host("root")
    host.settings.workspaces.mkdir()
    os.chown(host.settings.workspaces, 4321, 4321)
    with pytest.raises(AssertionError, match="chown -R 64321"):
        host.start()
    shutil.rmtree(host.data)
    host.log.unlink()


def test_the_health_page_tells_what_protects_the_machine(host: Host) -> None:
    health = host.health() or {}
    assert health["status"] == "ok"
    assert "tier" in health["limits"]
    assert json.dumps(health).count(host.settings.sandbox_token_file.read_text()) == 0


def test_the_hosts_own_files_are_out_of_sight(host: Host) -> None:
    names = {path.name for path in host.data.iterdir()}
    assert names == {"sandbox-token", "templates", "workspaces"}


async def test_an_unknown_operation_is_refused(box: Box) -> None:
    with pytest.raises(SandboxRefused, match="no operation"):
        await box.sandbox._ask("nosuch", {})


async def test_a_data_folder_deep_in_a_closed_home_can_be_used() -> None:
    """The home of root holds the interpreter, too, on machines that use pyenv."""
    if os.geteuid() != 0:
        pytest.skip("only root can start the host as root")
    with tempfile.TemporaryDirectory(dir=Path.home()) as home:
        folder = Path(home, "project", "of mine")
        folder.mkdir(parents=True, mode=0o700)
        with Host("root", folder=folder) as host:
            provider = LocalProvider(host.settings)
            box = await new_box(provider)
            assert await box.text("echo x > kept; cat kept; grep -c . /proc/mounts") != ""
            workspace = host.settings.workspaces / box.run_id.partition(".")[0]
            assert (workspace / "kept").read_text() == "x\n"
            assert await box.text("ls /root 2>&1") == "ls: cannot access '/root': No such file or directory\n"
            await provider.close()


@pytest.mark.parametrize("path", ["/proc/self/mem", "/proc/self/environ", "/proc/kcore", "/proc/1/root/etc/shadow"])
async def test_files_that_are_not_what_they_seem_do_no_harm(box: Box, path: str) -> None:
    with contextlib.suppress(FileError):
        await box.sandbox.read(path)
    assert await box.text("echo alive") == "alive\n"
    assert len(await box.sandbox.tasks()) == 0
