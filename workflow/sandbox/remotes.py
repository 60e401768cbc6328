"""The remote sandboxes of threads, as the gateway asks for them: found by their labels, held while they are in use."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from shared.config import SandboxSettings
from shared.ids import THREAD_ID
from shared.types import JSON
from workflow.sandbox.base import WORKSPACE, FileMissing, NotListening, SandboxRefused, SandboxUnavailable
from workflow.sandbox.framed import Moving
from workflow.sandbox.machine import MachineGone
from workflow.sandbox.remote import RemoteSandbox
from workflow.sandbox.remote_provider import RemoteProvider
from workflow.sandbox.ways import Stream, Way

KEPT_SECONDS = 30.0
"""Without use, after which a sandbox is let go, so that it may come to rest. Finding one again costs some requests."""
WAY_SECONDS = 5.0
"""In which nobody looks again whether a port is still listened on."""
MAKING = ("take", "unpack")
"""What is asked of a thread without a sandbox makes one."""


class _Known:
    def __init__(self, sandbox: RemoteSandbox) -> None:
        self.sandbox = sandbox
        self.users = 0
        self.dialled = 0
        self.letting_go: asyncio.TimerHandle | None = None
        self._ways: dict[int, tuple[float, Way]] = {}

    async def way(self, port: int) -> Way:
        """Raises NotListening, SandboxError, MachineGone."""
        looked_at, way = self._ways.get(port, (0.0, None))
        if way is None or time.monotonic() > looked_at + WAY_SECONDS:
            self._ways.pop(port, None)
            way = await self.sandbox.way(port)
            self._ways[port] = (time.monotonic(), way)
        return way


class Remotes:
    """Belongs to one event loop. Every method raises SandboxError."""

    def __init__(self, provider: RemoteProvider, settings: SandboxSettings) -> None:
        self._provider = provider
        self._settings = settings
        self._known: dict[str, _Known] = {}
        self.incarnation = secrets.token_hex(8)

    @property
    def held(self) -> int:
        """How many are in use, or were a moment ago."""
        return len(self._known)

    async def exists(self, thread_id: str) -> bool:
        """Whether the thread has a machine, running or not."""
        _check(thread_id)
        return await self._provider.look(thread_id)

    @asynccontextmanager
    async def used(self, thread_id: str, *, make: bool = False) -> AsyncIterator[RemoteSandbox]:
        """While it is, it does not expire."""
        async with self._using(thread_id, make=make) as known:
            yield known.sandbox

    @asynccontextmanager
    async def transfer(self, thread_id: str, request: JSON) -> AsyncIterator[Moving]:
        """See transfers.Begin."""
        async with (
            self.used(thread_id, make=request["op"] in MAKING) as sandbox,
            sandbox.transfer(request) as moving,
        ):
            yield moving

    @asynccontextmanager
    async def dial(self, thread_id: str, port: int) -> AsyncIterator[tuple[Stream, Mapping[str, str]]]:
        """See tunnel.Dial. Raises NotListening."""
        try:
            async with self._using(thread_id) as known, self._dialling(known):
                way = await known.way(port)
                stream = await _opened(way, port)
                try:
                    yield stream, way.headers
                finally:
                    stream.close()
        except (FileMissing, MachineGone) as gone:
            self._known.pop(thread_id, None)
            raise NotListening(port, []) from gone

    @asynccontextmanager
    async def _dialling(self, known: _Known) -> AsyncIterator[None]:
        if known.dialled >= self._settings.port_connections:
            raise SandboxRefused(f"{known.dialled} connections to the sandbox's ports are open: close some")
        known.dialled += 1
        try:
            yield
        finally:
            known.dialled -= 1

    @asynccontextmanager
    async def _using(self, thread_id: str, *, make: bool = False) -> AsyncIterator[_Known]:
        """Raises FileMissing where there is none, and none is to be made."""
        known = self._known.get(thread_id) or await self._find(thread_id, make=make)
        known.users += 1
        if known.letting_go:
            known.letting_go.cancel()
        try:
            yield known
        finally:
            known.users -= 1
            if not known.users:
                known.letting_go = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._let_go, thread_id, known)

    async def _find(self, thread_id: str, *, make: bool) -> _Known:
        _check(thread_id)
        provider = self._provider
        sandbox = await (provider.acquire(thread_id, None) if make else provider.find(thread_id))
        if sandbox is None:
            raise FileMissing("The thread has no sandbox.", WORKSPACE)
        return self._known.setdefault(thread_id, _Known(sandbox))

    def _let_go(self, thread_id: str, known: _Known) -> None:
        if self._known.get(thread_id) is known:
            del self._known[thread_id]


async def _opened(way: Way, port: int) -> Stream:
    try:
        return await way.open()
    except OSError as error:
        detail = f"The sandbox's provider does not let us through to port {port}: {error}."
        raise SandboxUnavailable(detail) from error


def _check(thread_id: str) -> None:
    if not THREAD_ID.fullmatch(thread_id):
        raise SandboxRefused(f"{thread_id!r} is not a thread id")
