"""An MCP server that is away when a worker starts: once it is there, so are its tools, for clients and for runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateway.support import serving, settings_for, until
from tests.support.databases import put_database
from tests.support.model_server import model_server
from tests.support.ports import free_port
from tests.support.stack import ROOT
from tests.workflow.mcp.test_mcp import kept_server

BOUND_SECONDS = 60
ADD = '[[tool:mcp__t__add {"a": 41}]]'


@pytest.mark.slow
async def test_a_worker_gives_the_tools_of_a_server_that_came_after_it(redis_url: str, tmp_path: Path) -> None:
    put_database(tmp_path)
    port = free_port()
    async with model_server() as model:
        env = {
            **os.environ,
            "TRUNKLINE__DATA": str(tmp_path),
            "TRUNKLINE__REDIS__URL": redis_url,
            "TRUNKLINE__LLM__MODEL": "openai/scripted",
            "TRUNKLINE__LLM__BASE_URL": model.api_url,
            "TRUNKLINE__LLM__API_KEY": "sk-test",
            "TRUNKLINE__MCP__SERVERS": json.dumps({"t": {"url": f"http://127.0.0.1:{port}/mcp"}}),
            "TRUNKLINE__NET__PRIVATE_HOSTS": json.dumps([f"127.0.0.1:{port}"]),
        }
        with (tmp_path / "worker.log").open("wb") as log:
            worker = subprocess.Popen([sys.executable, "-m", "modem"], cwd=ROOT, env=env, stdout=log, stderr=log)
        try:
            async with serving(settings_for(redis_url, tmp_path)) as gateway:

                async def told() -> list[str]:
                    tools = (await gateway.client.get("/api/tools?limit=200")).json()["items"]
                    return [tool["name"] for tool in tools]

                async def has_told() -> bool:
                    assert worker.poll() is None, (tmp_path / "worker.log").read_text()[-4000:]
                    return "bash" in await told()

                async def has_told_of_it() -> bool:
                    return "mcp__t__add" in await told()

                await until(has_told, BOUND_SECONDS)
                assert not await has_told_of_it()
                async with kept_server(tmp_path, port):
                    await until(has_told_of_it, BOUND_SECONDS)
                    run_id = await gateway.execute(await gateway.thread(), ADD)

                    async def has_ended() -> bool:
                        return str((await gateway.client.get(f"/api/runs/{run_id}")).json()["status"]) == "succeeded"

                    await until(has_ended, BOUND_SECONDS)
                assert (tmp_path / "calls").read_text() == "add\n"
        finally:
            worker.kill()
            worker.wait(10)
