"""The remote host as a process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from shared.ids import new_thread_id
from tests.gateway.support import until
from tests.support.e2b_double import E2BDouble
from tests.support.ports import free_port
from tests.workflow.sandbox.support import ROOT

START_SECONDS = 60
COMMAND = [sys.executable, "-m", "workflow.sandbox.remote_host"]


def environment(folder: Path, redis_url: str, **more: str) -> dict[str, str]:
    ours = {"DATA": str(folder), "REDIS__URL": redis_url, "LOG__FORMAT": "json", **more}
    return {**os.environ, "PYTHONPATH": str(ROOT), **{f"TRUNKLINE__{name}": value for name, value in ours.items()}}


@contextmanager
def running(env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(COMMAND, cwd=ROOT, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_it_serves_who_has_the_token_and_ends_when_it_is_told_to(tmp_path: Path, redis_url: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with E2BDouble() as double, httpx.AsyncClient(base_url=url) as client:
        given = {"E2B__API_KEY": double.key, "E2B__API_URL": double.api_url, "E2B__SANDBOX_URL": double.api_url}
        settings = {"SANDBOX__PROVIDER": "e2b", "SANDBOX__HOST_URL": url, **given}
        with running(environment(tmp_path, redis_url, **settings)) as process:

            async def answers() -> bool:
                try:
                    return (await client.get("/health")).is_success
                except httpx.TransportError:
                    assert process.poll() is None
                    return False

            await until(answers, START_SECONDS)
            path = f"/sandboxes/{new_thread_id()}"
            assert (await client.get(path)).status_code == 401
            token = {"Authorization": f"Bearer {(tmp_path / 'sandbox-token').read_text()}"}
            assert (await client.get(path, headers=token)).json() == {"exists": False}
            assert (await client.post(f"{path}/exec", headers=token, json={})).status_code == 404
            assert (await client.get("/sandboxes/x", headers=token)).status_code == 422
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


def test_it_says_that_local_sandboxes_have_a_host_of_their_own(tmp_path: Path, redis_url: str) -> None:
    done = subprocess.run(
        COMMAND, cwd=ROOT, env=environment(tmp_path, redis_url), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "workflow.sandbox.host" in done.stderr
