"""Whatever a client sends: never a 500, a hang, or something of the inside in an answer."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from gateway.stream.ws import CloseCode
from shared import keys
from shared.config import StreamSettings
from tests.gateway.support import BOUND_SECONDS, Gateway, serving, settings_for, until
from tests.gateway.websockets import AUTHORIZED
from tests.support.databases import put_database

INSIDE = ("Traceback", "redis://", 'File "', "site-packages", "ResponseError", "WRONGTYPE")

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
)
TYPES = st.sampled_from(["execute", "message", "cancel", "approve"])
FIELDS = st.sampled_from(
    ["task", "content", "step_id", "output", "as", "run_id", "parameters", "context_data", "on_busy", "user_uuid"]
)
FRAMES = st.builds(
    lambda kind, head, body: json.dumps({**body, **head, "type": kind}),
    TYPES | VALUES,
    st.fixed_dictionaries({}, optional={"id": VALUES, "idempotency_key": VALUES}),
    st.dictionaries(FIELDS | st.text(max_size=9), VALUES, max_size=4),
)
TEXTS = (
    FRAMES | st.text(max_size=200) | st.sampled_from(["[" * 5000, '{"type":' * 3000, '{"type":"execute","id":1e999}'])
)
IDS = st.sampled_from(
    ["0-0", "1-1", "-1-0", "99999999999999999999-0", "999999999999999-999999999999999", "٣-٣", "1-1\n"]
)
QUERIES = st.dictionaries(
    st.sampled_from(["last_id", "run_id", "ticket", "limit", "cursor", "flowUuid", "flowInputUuid", "agent_id", "x"]),
    st.text(max_size=30) | IDS,
    max_size=4,
)
SEGMENTS = st.text(min_size=1, max_size=40).map(lambda text: quote(text, safe=""))
RAW = st.binary(max_size=200)
QUESTIONS = {
    "/api/chat/stream": ["agent", "input", "session_id"],
    "/api/runs": ["agent_id", "task_id", "runnable_type", "runnable_id", "input", "thread_id", "parameters"],
}
"""Streams that a POST opens, and the fields of its body."""

STREAMS = [
    "/api/agent/{thread_id}/stream",
    "/api/agent/event-stream",
    "/api/runs/{run_id}/events",
    "/api/runs/{run_id}/logs",
]
SOCKETS = ["/ws/agent/{thread_id}", "/ws/runs/{run_id}/logs", "/ws/agents/stream", "/ws/agents/{agent_id}"]
CLOSED = (CloseCode.DONE, CloseCode.TIMEOUT)

many = settings(max_examples=60, suppress_health_check=list(HealthCheck))


@dataclass
class Served:
    """A gateway in a loop of its own, so that each example may have one too."""

    gateway: Gateway
    thread_id: str
    run_id: str
    loop: asyncio.AbstractEventLoop
    key_id: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    def place(self, path: str, agent_id: str = "nobody") -> str:
        return self.url + path.format(thread_id=self.thread_id, run_id=self.run_id, agent_id=agent_id)

    def held(self) -> dict[str, float]:
        """What open streams and sockets hold."""
        services = self.gateway.app.state.services

        async def counted() -> dict[str, float]:
            return {
                "counted streams": await services.redis.zcard(keys.streams("default", self.key_id)),
                "cursors": services.metrics.registry.get_sample_value("trunkline_stream_subscribers") or 0,
                "tasks": len(asyncio.all_tasks()),
            }

        return asyncio.run_coroutine_threadsafe(counted(), self.loop).result(BOUND_SECONDS)


@pytest.fixture
def served(redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Served]:
    limits = StreamSettings(keep_alive_seconds=0.02, idle_timeout_seconds=0.05, max_seconds=0.15, max_per_key=100_000)
    put_database(tmp_path)
    found: list[Served] = []
    ready, leave = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with serving(settings_for(redis_url, tmp_path, stream=limits)) as gateway:
            thread_id = await gateway.thread()
            run_id = await gateway.finished_run(thread_id)
            run = await gateway.store.run(run_id)
            assert run is not None
            found.append(Served(gateway, thread_id, run_id, asyncio.get_running_loop(), run.key_id or ""))
            ready.set()
            await leave.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(BOUND_SECONDS)
    before = found[0].held()
    yield found[0]
    asyncio.run(until(lambda: all(count <= before[name] for name, count in found[0].held().items())))
    found[0].loop.call_soon_threadsafe(leave.set)
    thread.join(BOUND_SECONDS)
    assert not thread.is_alive()
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def answer_to(served: Served, text: str) -> Mapping[str, Any]:
    """On a busy machine a socket's time may be over before it has answered: then another one is asked."""
    async with asyncio.timeout(BOUND_SECONDS), aiohttp.ClientSession(headers=AUTHORIZED) as session:
        while True:
            async with session.ws_connect(f"{served.url}/ws/agent/{served.thread_id}") as socket:
                with suppress(ConnectionError):  # closed already
                    await socket.send_str(text)
                async for each in socket:
                    message: dict[str, Any] = each.json()
                    if message["type"] == "answer" or (message["type"] == "error" and "id" in message):
                        return message
                assert socket.close_code == CloseCode.TIMEOUT


def test_every_frame_is_answered_and_crashes_nothing(served: Served) -> None:
    @many
    @given(text=TEXTS)
    def holds(text: str) -> None:
        answer = asyncio.run(answer_to(served, text))
        assert answer["type"] == "answer" or 400 <= answer["status"] < 500
        assert not any(word in json.dumps(answer) for word in INSIDE)

    holds()


async def closed_after(url: str, text: str) -> int:
    """What a socket is closed with that was told this."""
    async with aiohttp.ClientSession(headers=AUTHORIZED) as session, session.ws_connect(url) as socket:
        with suppress(ConnectionError):  # closed already
            await socket.send_str(text)
        async with asyncio.timeout(BOUND_SECONDS):
            async for _ in socket:
                pass
        return socket.close_code or 0


@pytest.mark.parametrize("path", ["/ws/runs/{run_id}/logs", "/ws/agents/stream"])
def test_a_socket_that_only_tells_takes_whatever_it_is_told(served: Served, path: str) -> None:
    @settings(many, max_examples=25)
    @given(text=TEXTS)
    def holds(text: str) -> None:
        assert asyncio.run(closed_after(served.place(path), text)) in CLOSED

    holds()


async def bytes_after(served: Served, path: str, raw: bytes) -> bytes:
    """What the server says to bytes that are no frames, or some, until it hangs up or its time is over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.gateway.port)
    head = {
        **{"host": "127.0.0.1", "connection": "Upgrade", "upgrade": "websocket", **AUTHORIZED},
        **{"sec-websocket-version": "13", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    writer.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.write(raw)
    writer.write_eof()
    try:
        async with asyncio.timeout(BOUND_SECONDS):
            return await reader.read()
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("path", ["/ws/agent/{thread_id}", "/ws/runs/{run_id}/logs", "/ws/agents/stream"])
def test_bytes_that_are_no_frames_end_it_without_a_word_of_the_inside(served: Served, path: str) -> None:
    address = served.place(path).removeprefix(served.url)

    @settings(many, max_examples=40)
    @given(raw=RAW)
    def holds(raw: bytes) -> None:
        said = asyncio.run(bytes_after(served, address, raw))
        assert not any(word.encode() in said for word in INSIDE)

    holds()
    assert asyncio.run(answer_to(served, '{"type":"cancel"}'))["type"] == "answer"


async def read(url: str, accept: str) -> tuple[int, str]:
    """A whole answer, of a stream what comes until it ends."""
    timeout = aiohttp.ClientTimeout(total=BOUND_SECONDS)
    headers = {**AUTHORIZED, "accept": accept}
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, headers=headers) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("path", STREAMS)
def test_every_query_of_a_stream_is_answered(served: Served, path: str) -> None:
    @settings(many, max_examples=40)
    @given(query=QUERIES)
    def holds(query: Mapping[str, str]) -> None:
        status, text = asyncio.run(read(f"{served.place(path)}?{urlencode(query)}", "text/event-stream"))
        assert status in (200, 204, 400, 404)
        assert not any(word in text for word in INSIDE)

    holds()


@pytest.mark.parametrize("path", QUESTIONS)
def test_every_question_is_answered(served: Served, path: str) -> None:
    fields = st.sampled_from(QUESTIONS[path]) | st.text(max_size=9)

    async def ask(question: Mapping[str, Any]) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=BOUND_SECONDS)
        headers = {**AUTHORIZED, "Accept": "text/event-stream"}
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.post(served.place(path), data=json.dumps(question)) as answer,
        ):
            return answer.status, await answer.text()

    @settings(many, max_examples=40)
    @given(question=st.dictionaries(fields, VALUES, max_size=4))
    def holds(question: Mapping[str, Any]) -> None:
        status, text = asyncio.run(ask(question))
        assert status in (400, 404, 501)
        assert not any(word in text for word in INSIDE)

    holds()


async def opened(url: str) -> int:
    """The status of the answer, or what an opened socket was closed with."""
    async with aiohttp.ClientSession(headers=AUTHORIZED) as session:
        try:
            async with session.ws_connect(url) as socket, asyncio.timeout(BOUND_SECONDS):
                async for _ in socket:
                    pass
                return socket.close_code or 0
        except aiohttp.WSServerHandshakeError as error:
            return error.status


@pytest.mark.parametrize("path", [*SOCKETS, "/ws/agent/{agent_id}", "/ws/runs/{agent_id}/logs"])
def test_every_address_of_a_socket_is_opened_or_refused(served: Served, path: str) -> None:
    @settings(many, max_examples=25)
    @given(query=QUERIES, text=SEGMENTS)
    def holds(query: Mapping[str, str], text: str) -> None:
        status = asyncio.run(opened(f"{served.place(path, text)}?{urlencode(query)}"))
        assert status in (400, 404, *CLOSED)

    holds()


def test_none_is_forgotten(served: Served) -> None:
    description = served.gateway.app.openapi()
    streams = {
        path
        for path, methods in description["paths"].items()
        for operation in methods.values()
        if "text/event-stream" in operation["responses"].get("200", {}).get("content", {})
    }
    assert streams == {*STREAMS, *QUESTIONS}
    assert {each["path"] for each in description["x-websockets"] if each["path"].startswith("/ws")} == set(SOCKETS)
