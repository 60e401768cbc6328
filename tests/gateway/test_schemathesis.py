"""Schemathesis asks a gateway what its description allows and what it does not: all checks, step by step too."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared.config import AgentsSettings, ToolsSettings
from shared.workers.catalogue import Catalogue, tell_catalogue
from shared.workers.tools import tell_tools
from tests.gateway.support import KEY, until
from tests.gateway.test_process import gateway_process, ready
from tests.support.ports import free_port
from tests.workflow.sandbox.support import Host
from workflow.definitions.registry import load_definitions
from workflow.tool.listing import cards_of
from workflow.tool.registry import built_in_tools

ROOT = Path(__file__).resolve().parents[2]
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
SETTINGS = {
    "AUTH__MAX_FAILURES": "1000000",
    "STREAM__KEEP_ALIVE_SECONDS": "0.2",
    "STREAM__IDLE_TIMEOUT_SECONDS": "0.4",
    "STREAM__MAX_SECONDS": "0.6",
    "STREAM__MAX_PER_KEY": "100000",
    "TOOLS__TRIAL_SECONDS": "0.05",
}
FUZZING_SECONDS = 120
BOUND_SECONDS = 900


async def tell_what_workers_know(redis_url: str) -> None:
    """So that agents can be made."""
    tools = built_in_tools().tools
    definitions = load_definitions(AgentsSettings()).given([tool.name for tool in tools])
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        await tell_catalogue(redis, Catalogue("0", definitions, providers=["openai"], models=[]))
        await tell_tools(redis, cards_of(tools, ToolsSettings().gives))


def schemathesis(port: int, folder: Path) -> subprocess.CompletedProcess[str]:
    command = f"{SCHEMATHESIS} --config-file {ROOT}/schemathesis.toml run http://127.0.0.1:{port}/openapi.json".split()
    command += ["-H", f"Authorization: Bearer {KEY}", "--checks", "all", "--continue-on-failure"]
    command += ["--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "15", "--seed", "5"]
    command += ["--max-time", str(FUZZING_SECONDS), "--request-timeout", "20"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=BOUND_SECONDS, check=False)


@pytest.mark.slow
async def test_the_gateway_does_what_its_description_says(redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    with Host("root" if os.geteuid() == 0 else "user") as host:
        address = {"SANDBOX__HOST_URL": host.settings.sandbox.host_url}
        token = {"SANDBOX__TOKEN_FILE": str(host.settings.sandbox_token_file)}
        with gateway_process(redis_url, tmp_path, port, variables={**SETTINGS, **address, **token}):
            await until(lambda: ready(port), 60)
            await tell_what_workers_know(redis_url)
            done = await asyncio.to_thread(schemathesis, port, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Stateful" in done.stdout
    print(done.stdout.split("= SUMMARY =")[-1])
    assert '"level": "ERROR"' not in (tmp_path / "log").read_text()
