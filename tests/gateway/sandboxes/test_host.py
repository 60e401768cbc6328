"""The gateway's client of the sandbox host: whatever that does, or a proxy before it, the caller hears AppError."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.sandboxes import host as host_module
from gateway.sandboxes.host import SandboxHost
from shared.config import SandboxSettings, Settings
from shared.errors import AppError, ErrorCode

HANGS_UP = b""
PROXY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\noops"
NO_REASON = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n[]"
NO_JSON = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\noops"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
SHORT = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"

Ask = Callable[[SandboxHost], Awaitable[object]]


async def down(host: SandboxHost) -> None:
    async with host.outgoing("t", {"op": "send"}):
        pass


async def up(host: SandboxHost) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"content"

    await host.incoming("t", {"op": "take"}, body())


ASKS: dict[str, Ask] = {
    "exists": lambda host: host.exists("t"),
    "ask": lambda host: host.ask("t", "list", {}),
    "outgoing": down,
    "incoming": up,
    "dial": lambda host: host.dial("t", 80),
}


@asynccontextmanager
async def a_host(folder: Path, answer: bytes | None) -> AsyncIterator[SandboxHost]:
    """One that answers so, whatever it is asked; None: never."""

    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        if answer is not None:
            writer.write(answer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    (folder / "token").write_text("t")
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    host = SandboxHost(Settings(sandbox=SandboxSettings(host_url=url, token_file=folder / "token")))
    try:
        yield host
    finally:
        await host.close()
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


@pytest.mark.parametrize("answer", [HANGS_UP, PROXY, NO_REASON])
@pytest.mark.parametrize("name", ASKS)
async def test_a_host_that_hangs_up_or_a_proxy_before_it_is_unavailable(
    tmp_path: Path, name: str, answer: bytes
) -> None:
    async with a_host(tmp_path, answer) as host:
        with pytest.raises(AppError) as refused:
            await ASKS[name](host)
    assert refused.value.code is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize("answer", [NO_JSON, EMPTY, SHORT])
@pytest.mark.parametrize("name", ["exists", "ask", "outgoing", "incoming"])
async def test_an_answer_that_makes_no_sense_is_unavailable(tmp_path: Path, name: str, answer: bytes) -> None:
    async with a_host(tmp_path, answer) as host:
        with pytest.raises(AppError) as refused:
            await ASKS[name](host)
    assert refused.value.code is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize("headers", [b"[1]", b'{"host": 1}', b'{"host": "\\u00e4"}', b"{"])
async def test_a_connection_whose_headers_make_no_sense_is_unavailable(tmp_path: Path, headers: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTrunkline-Port-Headers: " + headers + b"\r\n\r\n"
    async with a_host(tmp_path, answer) as host:
        with pytest.raises(AppError) as refused:
            await host.dial("t", 80)
    assert refused.value.code is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize("name", ASKS)
async def test_a_host_that_never_answers_is_unavailable(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "ANSWER_SECONDS", 0.1)
    async with a_host(tmp_path, None) as host, asyncio.timeout(10):
        with pytest.raises(AppError) as refused:
            await ASKS[name](host)
    assert refused.value.code is ErrorCode.UNAVAILABLE
