"""A real worker process whose event loop hangs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from modem.watchdog import EXIT_STATUS
from shared import keys
from tests.support.stack import ROOT

HANG_SECONDS = 2.5
READY_SECONDS = 60
BOUND_SECONDS = 20


@contextmanager
def worker(how: str, redis_url: str, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    settings = {
        "TRUNKLINE__DATA": str(folder),
        "TRUNKLINE__REDIS__URL": redis_url,
        "TRUNKLINE__LLM__MODEL": "openai/none",
        "TRUNKLINE__LOG__FORMAT": "json",
        "TRUNKLINE__WORKER__LEASE_SECONDS": "2",
        "TRUNKLINE__WORKER__RENEW_SECONDS": "0.2",
        "TRUNKLINE__WORKER__WATCHDOG_SECONDS": "1",
        "TRUNKLINE__WORKER__HANG_SECONDS": str(HANG_SECONDS),
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.modem.hanging", how],
            cwd=ROOT,
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n", (folder / "log").read_text()
        yield process
    finally:
        process.kill()
        process.wait(10)
        if process.stdout:
            process.stdout.close()


def test_a_worker_whose_loop_hangs_says_where_and_exits(redis_url: str, tmp_path: Path) -> None:
    with worker("waiting", redis_url, tmp_path) as process:
        process.send_signal(signal.SIGUSR1)
        began = time.monotonic()
        assert process.wait(BOUND_SECONDS) == EXIT_STATUS
        assert time.monotonic() - began > HANG_SECONDS
    log = (tmp_path / "log").read_text()
    assert "CRITICAL" in log
    assert log.count("in wait") >= 2, "its stack stands in the log's message and in the dump of all threads"
    assert "not renewing" in log


@pytest.mark.slow
@pytest.mark.parametrize("how", ["logging", "computing"])
def test_a_loop_that_hangs_with_a_lock_ends_its_process_too(how: str, redis_url: str, tmp_path: Path) -> None:
    with worker(how, redis_url, tmp_path) as process:
        process.send_signal(signal.SIGUSR1)
        assert process.wait(BOUND_SECONDS) == 1
    assert "Timeout" in (tmp_path / "log").read_text()


def test_a_worker_that_was_only_stopped_goes_on(redis_url: str, tmp_path: Path) -> None:
    with worker("waiting", redis_url, tmp_path) as process, redis.Redis.from_url(redis_url) as client:
        process.send_signal(signal.SIGSTOP)
        time.sleep(HANG_SECONDS * 1.3)  # longer than a hang may last, shorter than faulthandler waits
        process.send_signal(signal.SIGCONT)
        woke = time.time() * 1000
        deadline = time.monotonic() + BOUND_SECONDS
        while not client.zrangebyscore(keys.WORKERS, woke + 2500, "+inf"):  # renewed half a second after it woke
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
