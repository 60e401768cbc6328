"""HTTP to a sandbox host: the token, patience while the host restarts, and streams that go on where they broke."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import httpx
from pydantic_core import from_json

from workflow.sandbox import wire
from workflow.sandbox.base import SandboxUnavailable

PATIENCE_SECONDS = 5.0  # a host that restarts is there again by then
RETRY_SECONDS = 0.2
ANSWER_SECONDS = 60.0
SEND_SECONDS = 300.0  # of a long request, for the answer that comes when all of it is done
SILENCE_SECONDS = 30.0  # the host says every ten seconds that a command still runs

T = TypeVar("T")


class HostConnection:
    """What was asked and not answered is asked again: every operation with an effect is keyed."""

    def __init__(self, url: str, token_file: Path) -> None:
        self._url = url
        self._token_file = token_file
        self._token = ""
        self.host: str | None = None
        """Which one gave the latest answer; None before there was one."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50, keepalive_expiry=60)
        self._client = httpx.AsyncClient(base_url=url, limits=limits, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, path: str, body: bytes, seconds: float = ANSWER_SECONDS) -> bytes:
        """The body of the answer. Raises SandboxError as the host told it; SandboxUnavailable when it tells nothing."""

        async def send(_: _Patience) -> bytes:
            response = await self._client.post(path, content=body, headers=self._headers(), timeout=seconds)
            self._note(response)
            self._check(response.status_code, response.content)
            return response.content

        return await self._patiently(send)

    async def follow(
        self, path: str, body_from: Callable[[int], bytes], on_text: Callable[[str], Awaitable[None]]
    ) -> wire.Progress:
        """The last step of a stream; the text of the others goes to `on_text`, each piece once. Raises SandboxError.

        `body_from` makes the request for what comes from an offset on.
        """
        offset = 0

        async def send(patience: _Patience) -> wire.Progress:
            nonlocal offset
            async for step in self._steps(path, body_from(offset)):
                patience.renew()
                if step.error:
                    raise wire.error_from_json(step.error)
                if step.result or step.unknown:
                    return step
                if step.text:
                    offset = step.next_offset
                    await on_text(step.text)
            raise httpx.ReadError("the stream ended too early")

        return await self._patiently(send)

    @asynccontextmanager
    async def fetch(self, path: str, body: bytes) -> AsyncIterator[AsyncIterator[bytes]]:
        """The pieces of a long answer. Raises SandboxError, while they are read too."""
        request = self._client.stream("POST", path, content=body, headers=self._headers(), timeout=SILENCE_SECONDS)
        with self._told():
            async with request as response:
                if response.status_code != 200:
                    self._check(response.status_code, await response.aread())
                yield response.aiter_bytes()

    async def send(self, path: str, content: AsyncIterator[bytes]) -> bytes:
        """A long request, once. Raises SandboxError."""
        with self._told():
            answer = await self._client.post(path, content=content, headers=self._headers(), timeout=SEND_SECONDS)
            self._check(answer.status_code, answer.content)
            return answer.content

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            detail = f"The sandbox host at {self._url} broke off ({type(error).__name__}: {error})."
            raise SandboxUnavailable(detail) from error

    async def _steps(self, path: str, body: bytes) -> AsyncIterator[wire.Progress]:
        request = self._client.stream("POST", path, content=body, headers=self._headers(), timeout=SILENCE_SECONDS)
        async with request as response:
            self._note(response)
            if response.status_code != 200:
                self._check(response.status_code, await response.aread())
            rest = b""
            async for chunk in response.aiter_bytes():
                *lines, rest = (rest + chunk).split(b"\n")  # not aiter_lines: it splits inside strings, at U+2028
                for line in lines:
                    yield wire.adapter(wire.Progress).validate_json(line)

    async def _patiently(self, send: Callable[["_Patience"], Awaitable[T]]) -> T:
        patience = _Patience()
        while True:
            try:
                return await send(patience)
            except httpx.TransportError as error:
                if patience.is_over():
                    raise SandboxUnavailable(
                        f"The sandbox host at {self._url} does not answer ({type(error).__name__}: {error}). See that "
                        "it runs (`python -m workflow.sandbox.host`) and that sandbox.host_url names it."
                    ) from error
                await asyncio.sleep(RETRY_SECONDS)

    def _headers(self) -> dict[str, str]:
        self._token = self._token or self._read_token()
        return {"authorization": f"Bearer {self._token}"}

    def _read_token(self) -> str:
        try:
            return self._token_file.read_text().strip()
        except OSError as error:
            raise SandboxUnavailable(
                f"The token of the sandbox host cannot be read from {self._token_file} ({error.strerror}). The host "
                "makes it when it starts: see that it has, with the same data folder or sandbox.token_file."
            ) from error

    def _note(self, response: httpx.Response) -> None:
        self.host = response.headers.get(wire.HOST_HEADER, self.host)

    def _check(self, status: int, body: bytes) -> None:
        if status == 200:
            return
        if status == 401:
            used, self._token = self._token, ""
            if self._read_token() != used:
                raise httpx.ReadError("the token has changed")  # the host was set up anew: try again with its new one
            raise SandboxUnavailable(
                f"The sandbox host at {self._url} does not take the token in {self._token_file}: it was started with "
                "another one. Give both the same data folder or sandbox.token_file."
            )
        if status >= 500 and status != 503:
            raise SandboxUnavailable(f"The sandbox host failed with HTTP status {status}; its log has the reason.")
        raise wire.error_from_json(from_json(body))


class _Patience:
    """With a host that does not answer: from the first failure since it was last heard."""

    def __init__(self) -> None:
        self._ends: float | None = None

    def renew(self) -> None:
        self._ends = None

    def is_over(self) -> bool:
        """To be asked at every failure."""
        self._ends = self._ends or time.monotonic() + PATIENCE_SECONDS
        return time.monotonic() > self._ends
