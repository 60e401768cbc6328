"""The embedded stack as a whole: how it starts, what it survives, and that it leaves nothing behind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from scripts.stack.folder import MARK
from tests.support.ports import free_port
from tests.support.stack import ROOT, Stack, until

TRUNKLINE = str(Path(sys.executable).with_name("trunkline"))


def processes_of(data: Path) -> list[int]:
    """Those alive that belong to the stack on this folder, and the sandboxes of its host."""
    mark = f"{MARK}={data}".encode()
    return [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and mark in _environment(process).split(b"\0")
    ]


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


def up(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """scripts/up, where it is expected to end by itself."""
    return subprocess.run(
        ["bash", str(ROOT / "scripts/up"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[Stack]:
    async with Stack() as started:
        yield started


@pytest.mark.slow
async def test_a_second_start_on_the_folder_names_the_first(stack: Stack) -> None:
    second = await asyncio.to_thread(up, "--data", str(stack.data), "--port", "0")
    assert second.returncode == 1
    assert f"Trunkline runs already on the data folder {stack.data}" in second.stderr
    assert f"http://127.0.0.1:{stack.port}" in second.stderr
    assert (await stack.client.get("/health/ready")).status_code == 200


def test_a_busy_port_is_refused_with_the_cure(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = up("--data", str(tmp_path / "data"), "--port", str(port))
    assert done.returncode == 1
    assert f"Port {port} on 127.0.0.1 is in use by another program" in done.stderr
    assert f"--port {port + 1}" in done.stderr


def test_a_wrong_setting_stops_the_start_with_its_name(tmp_path: Path) -> None:
    done = up("--data", str(tmp_path / "data"), "--port", str(free_port()), TRUNKLINE__AGENT__MAX_TURNS="many")
    assert done.returncode == 1
    assert "TRUNKLINE__AGENT__MAX_TURNS" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
async def test_the_printed_link_lets_in_once(stack: Stack) -> None:
    [link] = [line.split()[-1] for line in stack.log.read_text().splitlines() if "/session?ticket=" in line]
    async with httpx.AsyncClient() as browser:
        assert (await browser.get(link)).status_code == 303
        assert (await browser.get(f"http://127.0.0.1:{stack.port}/api/agent")).status_code == 200
        assert (await browser.get(link)).status_code == 401


@pytest.mark.slow
async def test_every_killed_service_comes_back(stack: Stack) -> None:
    for name in ("gateway", "sandbox-host", "worker-1", "valkey"):
        killed = stack.kill(name)
        await until(lambda name=name, killed=killed: stack.pid(name) != killed, 20)

    async def works() -> bool:
        try:
            return bool((await stack.client.get("/health")).json()["status"] == "ok")
        except (httpx.TransportError, ValueError):
            return False

    async with asyncio.timeout(60):
        while not await works():
            await asyncio.sleep(0.1)
    run = [TRUNKLINE, "run", '[[tool:bash {"command": "echo back"}]]', "--data", str(stack.data)]
    done = await asyncio.to_thread(subprocess.run, run, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert "│ back" in done.stdout


@pytest.mark.slow
async def test_ctrl_c_leaves_no_process_no_port_and_no_file_that_says_it_runs(stack: Stack) -> None:
    await work(stack)
    assert len(processes_of(stack.data)) >= 4
    assert await stack.down() == 0
    assert processes_of(stack.data) == []
    assert [file.name for file in (stack.data / "run").iterdir()] == ["lock"]
    with socket.create_server(("127.0.0.1", stack.port)):
        pass
    await stack.up()
    assert (await stack.client.get("/api/agent")).json()["items"]


@pytest.mark.slow
async def test_a_killed_supervisor_leaves_no_process_and_the_next_start_finds_everything(stack: Stack) -> None:
    thread_id, run_id = await work(stack)
    stack.tell(signal.SIGKILL)
    assert await stack.down() == -signal.SIGKILL
    await until(lambda: processes_of(stack.data) == [], 20)
    await stack.up()
    assert (await stack.run(run_id))["status"] == "succeeded"
    assert (stack.workspace(thread_id) / "made").exists()


@pytest.mark.slow
async def test_a_second_ctrl_c_ends_it_at_once(stack: Stack) -> None:
    thread_id = await stack.thread()
    await stack.execute(thread_id, '[[tool:bash {"command": "touch made; sleep 60"}]]')
    await until((stack.workspace(thread_id) / "made").exists, 20)
    stack.tell(signal.SIGINT)
    await until(lambda: "Stopping" in stack.log.read_text(), 10)
    async with asyncio.timeout(20):  # less than its drain takes
        assert await stack.down() == 0
    assert processes_of(stack.data) == []


async def work(stack: Stack) -> tuple[str, str]:
    """A finished run that has used a sandbox."""
    thread_id = await stack.thread()
    run_id = await stack.execute(thread_id, '[[tool:bash {"command": "touch made"}]] [[tokens:2]]')
    async with asyncio.timeout(30):
        while (await stack.run(run_id))["status"] != "succeeded":
            await asyncio.sleep(0.1)
    return thread_id, run_id


@pytest.mark.slow
def test_one_command_runs_a_task_from_nothing_and_stops_what_it_started(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE")}
    task = "Write fizzbuzz.py, run it for 15, and tell me the output"
    command = ["bash", str(ROOT / "scripts/run"), task, "--model", "demo"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "│ FizzBuzz" in done.stdout
    assert "✓ succeeded" in done.stdout
    [files] = [line.split()[-1] for line in done.stderr.splitlines() if "its files" in line]
    assert (tmp_path / files / "fizzbuzz.py").exists()
    assert processes_of(tmp_path / "data") == []
