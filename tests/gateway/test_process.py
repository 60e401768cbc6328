"""The gateway as a process of its own: it starts, serves, and stops at once with exit code 0."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.gateway.support import KEY, RawStream, until
from tests.support.databases import put_database
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
SOON_SECONDS = 15  # an open stream would last for minutes


def environment(folder: Path, **variables: str) -> dict[str, str]:
    ours = {"TRUNKLINE__DATA": str(folder), **{f"TRUNKLINE__{name}": value for name, value in variables.items()}}
    return {**os.environ, **ours, "PYTHONPATH": str(ROOT)}


@contextmanager
def gateway_process(
    redis_url: str, folder: Path, port: int, workers: int = 1, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "key").write_text(KEY)
    put_database(folder)
    ours = {"REDIS__URL": redis_url, "API__PORT": str(port), "API__WORKERS": str(workers)}
    env = environment(folder, **ours, RATE_LIMIT__ENABLED="false", **(variables or {}))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "gateway"], env=env, cwd=folder, stderr=log, stdout=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


async def ready(port: int) -> bool:
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(f"http://127.0.0.1:{port}/health/ready")).status_code == 200
        except httpx.TransportError:
            return False


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGTERM, 2)])
async def test_a_signal_stops_it_soon_and_cuts_open_streams(
    redis_url: str, tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    port = free_port()
    with gateway_process(redis_url, tmp_path, port, workers) as process:
        await until(lambda: ready(port), 60)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": KEY}) as client:
            thread_id = (await client.post("/api/agent/initiate")).json()["thread_id"]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"GET /api/agent/{thread_id}/stream HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n\r\n"
        writer.write(head.encode())
        stream = await RawStream.begin(reader)
        assert (await stream.frames(1))[0].event == "waiting"
        process.send_signal(number)
        assert await stream.rest() == b""
        assert not stream.ended_cleanly
        assert await asyncio.to_thread(process.wait, SOON_SECONDS) == 0
        writer.transport.abort()
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert '"level": "ERROR"' not in log


def test_it_says_in_one_line_why_it_cannot_start(tmp_path: Path) -> None:
    for variables, word in (({}, "No API key"), ({"API__PORT": "many"}, "TRUNKLINE__API__PORT")):
        env = environment(tmp_path, **variables)
        result = subprocess.run(
            [sys.executable, "-m", "gateway"],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 1
        assert word in result.stderr
        assert "Traceback" not in result.stderr
