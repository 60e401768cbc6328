"""How an MCP server is reached: a process of this machine over its pipes, or an URL over the guard.

The SDK's HTTP is httpx2, so this is `shared.net.client` once more, in that library's words.
"""

import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp_types import INTERNAL_ERROR
from pydantic import SecretStr

from shared.config import McpServerSettings
from shared.net.guard import Guard, Refused, Target
from shared.secrets import VARIABLE
from workflow.mcp.pipes import pipe_streams

CONNECT_SECONDS = 10.0
STREAM_SECONDS = 300.0
ANSWER_BYTES = 16 * 1024**2  # of one answer, one event, or one line

Streams = AbstractAsyncContextManager[tuple[Any, Any]]


class UnsetVariable(Exception):
    """The settings name a variable that the environment has not. The text says which."""


def open_streams(settings: McpServerSettings, guard: Guard) -> Streams:
    """A connection when entered. Raises UnsetVariable, OSError where a command cannot be started."""
    if settings.url is None:
        assert settings.command is not None
        return pipe_streams(settings.command, settings.args, _plain(settings.env), line_bytes=ANSWER_BYTES)
    return _http_streams(settings.url, _plain(settings.headers), guard)


@asynccontextmanager
async def _http_streams(url: str, headers: dict[str, str], guard: Guard) -> AsyncIterator[tuple[Any, Any]]:
    async with (
        guarded_client(guard, headers) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=ANSWER_BYTES) as streams,
    ):
        yield streams


def guarded_client(guard: Guard, headers: dict[str, str]) -> httpx2.AsyncClient:
    """Its answers have at most ANSWER_BYTES, but for streams of events."""
    return httpx2.AsyncClient(
        transport=GuardedTransport(guard),
        headers={**headers, "Accept-Encoding": "identity"},
        timeout=httpx2.Timeout(CONNECT_SECONDS, read=STREAM_SECONDS),
        trust_env=False,
    )


class AnswerRefused(httpx2.StreamError):
    """An answer that is not read to its end. The text says why."""


class _Bounded(httpx2.AsyncByteStream):
    """Raises AnswerRefused."""

    def __init__(self, stream: httpx2.AsyncByteStream, encoding: str) -> None:
        self._stream = stream
        self._encoding = encoding

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._encoding not in ("", "identity"):
            raise AnswerRefused(f"its encoding {self._encoding[:40]!r} was not asked for")
        size = 0
        async for piece in self._stream:
            size += len(piece)
            if size > ANSWER_BYTES:
                raise AnswerRefused(f"it has more than {ANSWER_BYTES:,} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


def _bounded(response: httpx2.Response) -> httpx2.Response:
    encoding, kind = (response.headers.get(name, "").lower() for name in ("Content-Encoding", "Content-Type"))
    if not kind.startswith("text/event-stream") or encoding:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Bounded(response.stream, encoding.strip())
    return response


class GuardedTransport(httpx2.AsyncBaseTransport):
    """For one server. A request that was never sent is answered with an error, as if by the server.

    Raised, it would end the SDK's connection, and with it calls that were sent.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._inner = httpx2.AsyncHTTPTransport(verify=guard.verify, trust_env=False)
        self._host: str | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            target = await self._guard.check(str(request.url))
            return _bounded(await self._send(request, target))
        except (Refused, OSError, httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            return _not_sent(f"it cannot be reached: {error or type(error).__name__}")

    async def _send(self, request: httpx2.Request, target: Target) -> httpx2.Response:
        if self._host not in (None, target.host):  # connections are kept by address, and hosts must share none
            raise Refused("it is at another host now")
        self._host = target.host
        *others, last = target.addresses
        for address in others:
            try:
                return await self._inner.handle_async_request(_pinned(request, target, address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._inner.handle_async_request(_pinned(request, target, last))

    async def aclose(self) -> None:
        await self._inner.aclose()


def _not_sent(why: str) -> httpx2.Response:
    return httpx2.Response(502, json={"jsonrpc": "2.0", "id": None, "error": {"code": INTERNAL_ERROR, "message": why}})


def _pinned(request: httpx2.Request, target: Target, address: str) -> httpx2.Request:
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": target.host},
    )


def _plain(values: Mapping[str, SecretStr]) -> dict[str, str]:
    """With the variables of the environment put in. Raises UnsetVariable."""

    def value_of(match: re.Match[str]) -> str:
        if not (value := os.environ.get(match[1])):
            raise UnsetVariable(f"${{{match[1]}}} is not set in the worker's environment")
        return value

    return {name: VARIABLE.sub(value_of, value.get_secret_value()) for name, value in values.items()}
