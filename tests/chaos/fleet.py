"""The fleet under test: Valkey, gateways, workers, the sandbox host, and a scripted model that can fail."""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.ids import SHARDS
from shared.redis import connect
from tests.chaos.control import FOLDER, death_path, withdraw_orders
from tests.chaos.history import History
from tests.chaos.ledger import Ledger
from tests.chaos.process import Process
from tests.support.databases import put_database
from tests.support.model_server import Failure, Hang, ModelServer, Reply, Turn
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey

KEY = "chaos-key-0123456789abcdef"
WATCH_SECONDS = 0.05
READY_SECONDS = 90
STOP_SECONDS = 30
MAX_STARTS = 10
LOG_WARNING = "ignore:You're running the worker with superuser"


class FaultyModel(ModelServer):
    """`fault` befalls a share of the requests: 429, 500, hang, cut (in the middle of the stream)."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.fault: str | None = None
        self._random = random.Random(seed)

    def _by_markers(self, messages: list[dict[str, Any]]) -> Reply:
        reply = super()._by_markers(messages)
        if self.fault is None or self._random.random() < 0.4:
            return reply
        match self.fault:
            case "429":
                return Failure(429, "slow down", headers={"retry-after": "1"})
            case "500":
                return Failure(500)
            case "hang":
                return Hang()
        return replace(reply, end="cut") if isinstance(reply, Turn) else reply


@dataclass(frozen=True)
class Death:
    """A worker that was killed, and the runs that it had."""

    worker: str
    at: float
    runs: Sequence[str]
    how: str


@dataclass
class Fleet:
    """`async with Fleet(folder, history, seed=7) as fleet:`. `redis` reaches Valkey past all proxies."""

    folder: Path
    history: History
    seed: int
    workers_wanted: int = 2
    gateways_wanted: int = 2
    sandbox: bool = True
    settings: dict[str, str] = field(default_factory=dict)
    deaths: list[Death] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("orders", "deaths", "logs", "valkey", "data"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        put_database(self.folder / "data")
        self.ledger = Ledger(self.folder)
        self.valkey = Valkey(self.folder / "valkey")
        self.valkey_held_down = False
        self.model = FaultyModel(self.seed)
        self.proxies: dict[str, Proxy] = {}
        self.workers: list[Process] = []
        self.gateways: list[Process] = []
        self.gateway_urls: list[str] = []
        self.others: list[Process] = []
        self.redis: Redis = connect(self.valkey.url, timeout_seconds=5, max_connections=50)
        self.http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {KEY}"}, timeout=15, limits=httpx.Limits(max_connections=500)
        )
        self._killed: dict[int, float] = {}

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.__aexit__(*sys.exc_info())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.heal()
        everything = [*self.gateways, *self.workers]
        await asyncio.gather(*(process.stop(STOP_SECONDS) for process in everything))
        await asyncio.gather(*(process.stop(STOP_SECONDS) for process in self.others))
        self._valkey_keeper.cancel()
        await asyncio.gather(self._valkey_keeper, return_exceptions=True)
        await self.http.aclose()
        await self.redis.aclose()
        self.valkey.kill()
        await asyncio.gather(*(proxy.stop() for proxy in self.proxies.values()))
        self._model_server.close()
        self.model.disconnect()

    async def heal(self) -> None:
        """Ends every fault that lasts. What was killed comes back by itself."""
        withdraw_orders(self.folder)
        self.model.fault = None
        self.valkey_held_down = False
        self.valkey.free_disk()
        await asyncio.gather(*(proxy.set("pass") for proxy in self.proxies.values()))

    async def watched(self, seconds: float) -> None:
        """Waits so long. RuntimeError as soon as Valkey no longer starts."""
        await asyncio.wait([self._valkey_keeper], timeout=seconds)
        if self._valkey_keeper.done():
            self._valkey_keeper.result()

    async def whole(self, seconds: float = READY_SECONDS) -> None:
        """Waits until everything is there and ready."""
        async with asyncio.timeout(seconds):
            while not await self._is_whole():
                await asyncio.sleep(0.1)

    def note_kill(self, pid: int) -> None:
        """The worker with this pid was killed just now."""
        self._killed[pid] = time.time()

    async def _start(self) -> None:
        self._model_server = await self.model.start()
        self.valkey.start()
        self._valkey_keeper = asyncio.create_task(self._keep_valkey())
        if self.sandbox:
            self._sandbox_port = free_port()
            host = {**self._environment(self.valkey.port), "TRUNKLINE__LOG__LEVEL": "WARNING"}
            self.others.append(self._process("sandbox-host", ["-m", "workflow.sandbox.host"], host))
        for number in range(self.gateways_wanted):
            port = free_port()
            name = f"gateway-{number}"
            environment = {**await self._proxied(name), "TRUNKLINE__API__PORT": str(port)}
            self.gateways.append(self._process(name, ["-m", "tests.chaos.gateway", name], environment))
            self.gateway_urls.append(f"http://127.0.0.1:{port}")
        for number in range(self.workers_wanted):
            name = f"worker-{number}"
            environment = await self._proxied(name)
            self.workers.append(self._process(name, ["-m", "tests.chaos.worker", "--name", name], environment))
        for process in (*self.others, *self.gateways, *self.workers):
            process.start()
        await self.whole()

    def _process(self, name: str, arguments: list[str], environment: dict[str, str]) -> Process:
        return Process(name, [sys.executable, *arguments], environment, self.folder / "logs", self._on_exit)

    async def _proxied(self, name: str) -> dict[str, str]:
        proxy = self.proxies[name] = Proxy(self.valkey.port)
        await proxy.start()
        return self._environment(proxy.port)

    def _environment(self, valkey_port: int) -> dict[str, str]:
        sandbox = {"TRUNKLINE__SANDBOX__HOST_URL": f"http://127.0.0.1:{self._sandbox_port}"} if self.sandbox else {}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE__")}
        return {
            **kept,
            FOLDER: str(self.folder),
            "PYTHONWARNINGS": LOG_WARNING,
            "TRUNKLINE__DATA": str(self.folder / "data"),
            "TRUNKLINE__REDIS__URL": f"redis://127.0.0.1:{valkey_port}/0",
            "TRUNKLINE__AUTH__KEYS": json.dumps([KEY]),
            "TRUNKLINE__RATE_LIMIT__ENABLED": "false",
            "TRUNKLINE__LLM__MODEL": "openai/scripted",
            "TRUNKLINE__LLM__BASE_URL": self.model.api_url,
            "TRUNKLINE__LLM__API_KEY": "sk-chaos",
            "TRUNKLINE__LLM__TIMEOUT_SECONDS": "5",
            "TRUNKLINE__LLM__MAX_ATTEMPTS": "60",
            "TRUNKLINE__LLM__BACKOFF_SECONDS": "0.2",
            "TRUNKLINE__LLM__BACKOFF_MAX_SECONDS": "2",
            "TRUNKLINE__WORKER__DRAIN_SECONDS": "5",
            "TRUNKLINE__WORKER__MAX_ATTEMPTS": "50",
            "TRUNKLINE__WORKER__WORKSPACE_CONCURRENCY": "8",  # less than what is under way at once
            "TRUNKLINE__WORKFLOW__MODULES": '["tests.chaos.flows"]',
            **sandbox,
            **self.settings,
        }

    async def _on_exit(self, process: Process, pid: int, code: int) -> None:
        """For a killed worker: which runs it had, to see how long they stand still."""
        self.history.add("exit", name=process.name, pid=pid, code=code)
        if process not in self.workers or code != -signal.SIGKILL:
            return
        at, how = self._killed.pop(pid, time.time()), "kill"
        if (path := death_path(self.folder, pid)).exists():
            death = json.loads(path.read_text())
            at, how = death["at"], death["point"]
        try:
            held = await self.held_by(process.name)
        except RedisError:
            return
        self.deaths.append(Death(process.name, at, held, how))
        self.history.add("death", worker=process.name, how=how, runs=len(held))

    async def held_by(self, worker: str) -> list[str]:
        """The runs that a worker has, under whatever name it registered."""
        pipeline = self.redis.pipeline(transaction=False)
        for shard in range(SHARDS):
            pipeline.hgetall(keys.live(shard))
        found = await pipeline.execute()
        return [run for runs in found for run, name in runs.items() if name.rpartition("-")[0] == worker]

    async def is_ready(self, worker: Process) -> bool:
        """Whether its present incarnation has registered, as its card in Redis tells."""
        try:
            cards = [card async for card in self.redis.scan_iter("worker:*")]
            pids = [await self.redis.hget(str(card), "pid") for card in cards]
        except RedisError:
            return False
        return worker.pid != 0 and str(worker.pid) in pids

    async def _keep_valkey(self) -> None:
        starts = 0  # since it last answered
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self.valkey.running:
                if starts and await self._valkey_answers():
                    starts = 0
            elif not self.valkey_held_down:
                if starts == MAX_STARTS:
                    raise RuntimeError(f"Valkey was started {starts} times and ended each time before it answered")
                starts += 1
                self.history.add("valkey starts")
                self.valkey.launch()
                await asyncio.sleep(0.5)

    async def _valkey_answers(self) -> bool:
        try:
            return bool(await self.redis.ping())
        except RedisError:
            return False

    async def _is_whole(self) -> bool:
        try:
            if not all([await self.is_ready(worker) for worker in self.workers]):
                return False
            for url in self.gateway_urls:
                if not (await self.http.get(f"{url}/health/ready")).is_success:
                    return False
            if self.sandbox:
                await self.http.get(f"http://127.0.0.1:{self._sandbox_port}/health")
        except (RedisError, httpx.TransportError):
            return False
        return True
