"""What `scripts/run` says when something goes wrong on its way."""

import asyncio
import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from scripts.stack.errors import StackError
from scripts.stack.folder import DataFolder
from scripts.stack.once import go_on, run_task, stop
from tests.support.stack import ROOT, until
from tests.trunkline.server import as_json, serving
from trunkline import Run, Trunkline

THREAD = {"thread_id": "t", "status": "active", "created_at": "2026-11-21T05:00:00Z"}
REFUSAL = {"code": "invalid_request", "detail": "body.task has 200000 characters, 100000 are allowed"}
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(60)"


@pytest.fixture(autouse=True)
def _ctrl_c_as_before() -> Iterator[None]:
    """Where the task has begun, Ctrl-C is the command's."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_task_that_is_refused_leaves_no_run_and_the_refusals_exit_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answers = as_json(THREAD), as_json(REFUSAL, 400), as_json({"items": [], "next_cursor": None})
    with serving(*answers) as (url, _), Trunkline(url) as client:
        DataFolder(tmp_path).announce(url)
        assert run_task(client, tmp_path, "Sing") == (1, None)
    assert REFUSAL["detail"] in capfd.readouterr().err


async def test_ctrl_c_while_the_stack_starts_stops_it_without_a_traceback(tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = [sys.executable, "-P", "-m", "scripts.stack.once", "Sing", "--data", str(data), "--model", "demo"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as once:
        await until((data / "run" / "valkey.pid").exists, 30)
        once.send_signal(signal.SIGINT)
        _, told = await asyncio.to_thread(once.communicate, timeout=60)
    assert "Traceback" not in told
    assert once.returncode == 130
    assert not DataFolder(data).is_held()


def test_what_to_do_next_works_from_where_the_user_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.parse({"run_id": "t.r", "thread_id": "t", "status": "succeeded", "created_at": "2026-11-21T05:00:00Z"})
    told = {}
    for place in (ROOT, tmp_path):
        monkeypatch.chdir(place)
        go_on(Console(file=(out := io.StringIO()), width=200), place / "data", run, started=True)
        told[place] = out.getvalue()
    assert "to go on   scripts/up\n" in told[ROOT]
    assert f"to go on   {ROOT}/scripts/up\n" in told[tmp_path]
    assert "its files  data/workspaces/t\n" in told[tmp_path]


def test_a_stack_that_does_not_stop_is_killed_and_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.stack.once.STOP_SECONDS", 0.1)
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as stack:
        assert stack.stdout
        stack.stdout.read(1)
        with pytest.raises(StackError, match=r"did not stop within 0.1 s and was killed.*up\.log"):
            stop(stack, tmp_path / "up.log")
        assert stack.poll() is not None
