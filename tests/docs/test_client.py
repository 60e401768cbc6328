"""What docs/client.md shows does what it says: each of its programs runs, in their order, against a real gateway."""

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.gateway.support import KEY, Gateway
from tests.trunkline.test_files import gateway, host
from tests.trunkline.worker import ANSWER, Worker
from trunkline import Trunkline
from trunkline.cli import app

__all__ = ["gateway", "host"]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "client.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


async def test_each_program_of_the_page_runs(
    gateway: Gateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    url = f"http://127.0.0.1:{gateway.port}"
    monkeypatch.chdir(tmp_path)
    worker = Worker(gateway)
    working = asyncio.create_task(_work(worker, gateway))
    run_id = await gateway.finished_run(await gateway.thread(), 2)
    try:
        await asyncio.to_thread(_programs, url, run_id)
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    told = capfd.readouterr().out
    for words in ("run.completed", ANSWER, "t00000 t00001 ", "really?", "input.csv 8"):
        assert words in told
    assert (tmp_path / "input.csv").read_bytes() == b"a,b\n1,2\n"


async def _work(worker: Worker, gateway: Gateway) -> None:
    """What is pending is executed, whoever has begun it."""
    while True:
        for thread in (await gateway.client.get("/api/agent")).json()["items"]:
            if thread["current_run_id"]:
                await worker.work(thread["current_run_id"])
        await asyncio.sleep(0.05)


def _programs(url: str, run_id: str) -> None:
    with Trunkline(url, KEY) as client:
        client.runs.create(runnable_type="function", runnable_id="ask", input="really?")
        bound = time.monotonic() + 20
        while not list(client.approvals.list()):
            assert time.monotonic() < bound, "nothing waits for approval"
            time.sleep(0.05)
        names: dict[str, Any] = {"key": KEY, "trunkline": client}
        for program in PROGRAMS:
            exec(compile(program.replace("http://127.0.0.1:8000", url), "docs/client.md", "exec"), names)
            names |= {"trunkline": client, "run": client.runs.get(run_id), "thread": client.threads.initiate()}
        names["patient"].close()


def test_each_command_of_the_page_is_one() -> None:
    lines = re.findall(r"^    trunkline (\w+)(?: (\w+))?", PAGE, re.MULTILINE)
    assert len(lines) > 10
    for command, word in lines:
        words = [command, word] if command in ("files", "keys") else [command]
        assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0, words


def test_each_method_of_the_page_is_one() -> None:
    rows = re.findall(r"^\| (`.*?) \| (`.*?) \|$", PAGE.partition("## Streams")[0], re.MULTILINE)
    checked = 0
    with Trunkline("http://127.0.0.1:9") as client:
        for first, second in rows:
            resources, methods = re.findall(r"`(\w+)`", first), re.findall(r"`([^`]*)`", second)
            if len(methods) != len(resources):  # one list for all, and then what some have of their own
                methods = methods[:1] * len(resources)
            for resource, names in zip(resources, methods, strict=True):
                for name in names.split():
                    assert callable(getattr(getattr(client, resource), name)), (resource, name)
                    checked += 1
    assert checked > 60
