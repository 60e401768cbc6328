"""A real gateway over loopback, in the test's own loop, and what a client and a worker do to it."""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from redis.asyncio import Redis

from gateway.app import create_app
from gateway.server import Protocol, WebSocketProtocol
from gateway.stream.entries import Entry
from gateway.stream.older import Older
from shared.config import ApiSettings, RateLimitSettings, RedisSettings, Settings, StreamSettings
from shared.db.engine import Database
from shared.db.schema import upgrade
from shared.threads.attempt import Attempt
from shared.threads.store import ThreadStore
from shared.threads.types import NewEvent
from shared.types import JSON, RunStatus
from tests.support.ports import free_port
from tests.support.waiting import until

__all__ = ["until"]

KEY = "tl_a-key-for-tests-only"
BOUND_SECONDS = 20


class NoArchive(Older):
    """An archive without anything."""

    def __init__(self) -> None: ...

    async def page(self, *_: object) -> list[Entry]:
        return []


@dataclass
class Gateway:
    app: FastAPI
    port: int
    redis: Redis
    store: ThreadStore
    client: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=BOUND_SECONDS,
            limits=httpx.Limits(max_connections=200),
        )

    async def thread(self) -> str:
        answer = await self.client.post("/api/agent/initiate")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["thread_id"])

    async def execute(self, thread_id: str, task: str = "a task", **body: Any) -> str:
        answer = await self.client.post(f"/api/agent/{thread_id}/execute", json={"task": task, **body})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["run_id"])

    async def attempt(self, run_id: str, worker: str = "w1") -> Attempt:
        """What a worker holds after its claim."""
        attempt = await self.store.claim(run_id, worker, secrets.token_hex(4))
        assert attempt is not None
        return attempt

    async def finished_run(self, thread_id: str, deltas: int = 5) -> str:
        run_id = await self.execute(thread_id)
        await finish(await self.attempt(run_id), deltas)
        return run_id

    @asynccontextmanager
    async def stream(self, path: str, headers: Mapping[str, str] | None = None) -> AsyncIterator["RawStream"]:
        """An open stream, seen as bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
        fields = {"host": f"127.0.0.1:{self.port}", "authorization": f"Bearer {KEY}", **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        try:
            yield await RawStream.begin(reader)
        finally:
            writer.transport.abort()

    async def body_of(self, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        """A stream that the server ends, whole."""
        async with self.stream(path, headers) as stream:
            return await stream.rest()

    async def connections(self) -> int:
        """Those that the gateway has to Redis."""
        return len(await self.redis.client_list()) - 2  # the test's own: this one, and the store's


@dataclass
class Frame:
    id: str | None
    event: str
    data: JSON
    raw: bytes


class RawStream:
    """A chunked response body, as it comes."""

    def __init__(self, reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.ended_cleanly = False
        self._reader = reader
        self._buffer = b""

    @classmethod
    async def begin(cls, reader: asyncio.StreamReader) -> "RawStream":
        async with asyncio.timeout(BOUND_SECONDS):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status, *fields = head.strip().split("\r\n")
        pairs = (line.split(": ", 1) for line in fields)
        return cls(reader, int(status.split()[1]), {name.lower(): value for name, value in pairs})

    async def chunk(self) -> bytes:
        """The next one; empty at the end. Sets `ended_cleanly` when that is how it ends."""
        try:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            data = await self._reader.readexactly(size + 2)
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        self.ended_cleanly = size == 0
        return data[:-2]

    async def rest(self) -> bytes:
        """All that comes until the end, whichever way it ends."""
        async with asyncio.timeout(BOUND_SECONDS):
            while chunk := await self.chunk():
                self._buffer += chunk
        return self._buffer

    async def frames(self, count: int) -> list[Frame]:
        """The next so many frames that have data."""
        found: list[Frame] = []
        async with asyncio.timeout(BOUND_SECONDS):
            while len(found) < count:
                while b"\n\n" not in self._buffer:
                    chunk = await self.chunk()
                    assert chunk, f"the stream ended after {[frame.event for frame in found]}"
                    self._buffer += chunk
                raw, _, self._buffer = self._buffer.partition(b"\n\n")
                found += frames_of(raw + b"\n\n")
        return found


def frames_of(body: bytes) -> list[Frame]:
    found = []
    for raw in body.split(b"\n\n"):
        fields = dict(line.split(": ", 1) for line in raw.decode().split("\n") if line)
        if "data" in fields:
            data = json.loads(fields["data"])
            found.append(Frame(fields.get("id"), fields.get("event", "message"), data, raw + b"\n\n"))
    return found


def events_in(body: bytes) -> bytes:
    """What of a stream's bytes are events of the thread: the frames with an id."""
    return b"".join(raw + b"\n\n" for raw in body.split(b"\n\n") if raw.startswith(b"id: "))


def ids_in(body: bytes) -> list[str]:
    return [found.decode() for found in re.findall(rb"^id: (.*)$", body, re.MULTILINE)]


def delta(text: str) -> NewEvent:
    return NewEvent("agent.delta", {"text": text}, 1)


async def finish(attempt: Attempt, deltas: int = 0) -> None:
    for number in range(deltas):
        await attempt.emit([delta(f"t{number:05} ")])
    await attempt.end(RunStatus.SUCCEEDED, {"output": "done"}, {"output": "done"})


def settings_for(redis_url: str, folder: Path, **sections: Any) -> Settings:
    (folder / "key").write_text(KEY)
    return Settings(
        data=folder,
        **{
            "redis": RedisSettings(url=redis_url, timeout_seconds=2),
            "api": ApiSettings(),
            "rate_limit": RateLimitSettings(max_requests=10_000),
            **sections,
        },
    )


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Gateway]:
    if settings.database.url is None and not (settings.data / "trunkline.db").exists():
        await _migrate(settings)
    app, port = create_app(settings), free_port()
    config = uvicorn.Config(
        app,
        port=port,
        http=Protocol,
        ws=WebSocketProtocol,
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    redis = Redis.from_url(settings.redis.url, decode_responses=True)
    store_redis = Redis.from_url(settings.redis.url, decode_responses=True)
    gateway = Gateway(app, port, redis, ThreadStore(store_redis, ring_seconds=5, patience_seconds=BOUND_SECONDS))
    try:
        await until(lambda: server.started)
        yield gateway
    finally:
        await gateway.client.aclose()
        server.should_exit = True
        await serving
        await redis.aclose()
        await store_redis.aclose()


async def _migrate(settings: Settings) -> None:
    database = Database.from_settings(settings)
    await upgrade(database)
    await database.close()


BRIEF = StreamSettings(keep_alive_seconds=0.1, idle_timeout_seconds=1, max_seconds=1.5)
"""Limits that a test can wait for, and that a busy machine does not pass before anything was said."""
