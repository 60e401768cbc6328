"""The sandbox host as the gateway asks it: for the files and the ports of a thread's sandbox."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import httpcore
import httpx
import orjson

from gateway.sandboxes.tunnel import HostRefused, Tunnel
from shared.config import Settings
from shared.errors import AppError, ErrorCode
from shared.threads.types import Thread
from shared.types import JSON

ANSWER_SECONDS = 60.0
RETRY_SECONDS = 5.0
MAX_HEAD_BYTES = 64 * 1024

_CODES = {
    "FileMissing": ErrorCode.NOT_FOUND,
    "FileChanged": ErrorCode.PRECONDITION_FAILED,
    "SandboxUnavailable": ErrorCode.UNAVAILABLE,
    "SandboxLost": ErrorCode.UNAVAILABLE,
}


class NothingListens(Exception):
    """On that port; `ports` are those on which something does."""

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__()
        self.ports = ports


class SandboxHost:
    """Belongs to one event loop. Every method raises AppError: UNAVAILABLE, or what the sandbox refuses."""

    def __init__(self, settings: Settings) -> None:
        self._provider = settings.sandbox.provider
        self._url = settings.sandbox.host_url
        self._token_file = settings.sandbox_token_file
        timeout = httpx.Timeout(ANSWER_SECONDS, pool=None)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        self._client = httpx.AsyncClient(base_url=self._url, timeout=timeout, limits=limits, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    def check_provider(self, thread: Thread) -> None:
        """Raises AppError UNSUPPORTED where the thread's sandbox is none of this host's."""
        provider = (thread.sandbox or {}).get("provider", self._provider)
        if provider != self._provider:
            detail = f"The thread's sandbox is at {provider}; the gateway reaches those at {self._provider} only."
            raise AppError(ErrorCode.UNSUPPORTED, detail)

    async def exists(self, thread_id: str) -> bool:
        """Whether the thread's sandbox was ever made."""
        answer = await self._ask("GET", f"/sandboxes/{thread_id}")
        return bool(answer.get("exists"))

    async def ask(self, thread_id: str, operation: str, request: JSON) -> JSON:
        return await self._ask("POST", f"/sandboxes/{thread_id}/{operation}", content=orjson.dumps(request))

    @asynccontextmanager
    async def outgoing(self, thread_id: str, request: JSON) -> AsyncIterator[tuple[JSON, AsyncIterator[bytes]]]:
        """What comes, and then its bytes. They raise httpx.HTTPError where they break off."""
        path = f"/sandboxes/{thread_id}/outgoing"
        async with AsyncExitStack() as stack:
            with _translated():
                answer = self._answer("POST", path, content=orjson.dumps(request))
                pieces = (await stack.enter_async_context(answer)).aiter_raw()
                line = b""
                while b"\n" not in line and len(line) < MAX_HEAD_BYTES and (piece := await anext(pieces, b"")):
                    line += piece
            head, _, rest = line.partition(b"\n")
            yield _parsed(head), _joined(rest, pieces)

    async def incoming(self, thread_id: str, request: JSON, body: AsyncIterator[bytes]) -> JSON:
        content = _joined(orjson.dumps(request) + b"\n", body)
        return await self._ask("POST", f"/sandboxes/{thread_id}/incoming", content=content)

    async def dial(self, thread_id: str, port: int) -> Tunnel:
        """Raises NothingListens."""
        headers = list(self._headers().items())
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await Tunnel.open(self._url, f"/sandboxes/{thread_id}/ports/{port}", headers)
        except HostRefused as refused:
            raise _refusal(refused.status, refused.body) from refused
        except (httpcore.NetworkError, TimeoutError) as error:
            raise _away() from error

    async def _ask(self, method: str, path: str, **content: Any) -> JSON:
        with _translated():
            async with self._answer(method, path, **content) as response:
                return _parsed(await response.aread())

    @asynccontextmanager
    async def _answer(self, method: str, path: str, **content: Any) -> AsyncIterator[httpx.Response]:
        """One that is no refusal. Raises httpx.HTTPError."""
        async with self._client.stream(method, path, headers=self._headers(), **content) as response:
            if response.status_code != 200:
                raise _refusal(response.status_code, await response.aread())
            yield response

    def _headers(self) -> dict[str, str]:
        try:
            return {"authorization": f"Bearer {self._token_file.read_text().strip()}"}
        except OSError as error:
            raise _away() from error


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise _away() from error


def _refusal(status: int, body: bytes) -> Exception:
    if status in (401, 500):
        return _away()
    told = _parsed(body)
    if told.get("error") == "NotListening":
        return NothingListens(told.get("ports", ()))
    if "detail" not in told:  # it is a proxy's
        return _away()
    code = _CODES.get(told.get("error", ""), ErrorCode.INVALID_REQUEST)
    return AppError(code, told["detail"], retry_after=RETRY_SECONDS if code is ErrorCode.UNAVAILABLE else None)


def _parsed(body: bytes) -> JSON:
    """Raises AppError UNAVAILABLE: what speaks no JSON is no sandbox host."""
    try:
        told = orjson.loads(body)
    except ValueError as error:
        raise _away() from error
    if not isinstance(told, dict):
        raise _away()
    return told


def _away() -> AppError:
    detail = "The sandbox host does not answer, or does not know this gateway. Try again soon."
    return AppError(ErrorCode.UNAVAILABLE, detail, retry_after=RETRY_SECONDS)


async def _joined(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece
