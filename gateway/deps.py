"""What endpoints are given: the process's services, and who calls."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Header
from pydantic import AfterValidator
from redis.asyncio import Redis
from starlette.requests import HTTPConnection

from gateway.audit import PRINCIPAL, AuditLog
from gateway.auth import Authenticator, Principal
from gateway.idempotency import Idempotency, a_key
from gateway.limits import RateLimits, RouteClass, class_of
from gateway.metrics import GatewayMetrics
from gateway.open_streams import OpenStreams
from gateway.patterns import IDEMPOTENCY_KEY, looks_like
from gateway.revocations import Revocations
from gateway.room import Room
from gateway.sandboxes.host import SandboxHost
from gateway.stream.open import Streams
from shared.channels import Channels
from shared.config import Settings
from shared.db.engine import Database
from shared.errors import AppError, ErrorCode
from shared.events.outside import Outside
from shared.history.changes import Changes
from shared.history.lists import Lists
from shared.history.reads import History
from shared.ids import is_run_id, is_thread_id
from shared.payloads.blobs import Lost
from shared.queue import RunQueue
from shared.snapshots.snapshots import Snapshots
from shared.threads.store import ThreadStore
from shared.threads.types import Run, Thread
from shared.types import Scope
from shared.workers.registry import WorkerRegistry

log = logging.getLogger("trunkline.gateway")


@dataclass(frozen=True, slots=True)
class Services:
    """One of each a process; made by the application's lifespan."""

    settings: Settings
    auth: Authenticator
    redis: Redis
    broker: Redis
    db: Database
    outside: Outside
    idempotency: Idempotency
    queue: RunQueue
    workers: WorkerRegistry
    room: Room
    streams: Streams
    limits: RateLimits
    open_streams: OpenStreams
    revocations: Revocations
    sandboxes: SandboxHost
    snapshots: Snapshots
    channels: Channels
    audit: AuditLog
    history: History
    lists: Lists
    changes: Changes
    metrics: GatewayMetrics
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def store(self) -> ThreadStore:
        return self.outside.store

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """For what the answer need not wait for. `work` must not raise."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    @asynccontextmanager
    async def counted_stream(self, caller: Principal) -> AsyncIterator[None]:
        """One of those that a key may hold open. Raises AppError RATE_LIMITED where it has too many."""
        stream = await self.open_streams.open(caller)
        try:
            yield
        finally:
            self.in_background(self.open_streams.close(stream))

    async def copy_files(self, thread_id: str, new_thread: str, *, up_to: str | None) -> None:
        """For a fork: the new thread's sandbox will begin with them. What is lost is lost there too.

        Raises AppError UNAVAILABLE.
        """
        try:
            await self.snapshots.copy(thread_id, new_thread, up_to=up_to)
        except Lost as lost:
            log.error("thread %s begins without the files of %s: %s", new_thread, thread_id, lost.detail)

    async def thread_of(self, caller: Principal, thread_id: str) -> Thread:
        """Evicted or not. Raises AppError NOT_FOUND, for a thread of somebody else too."""
        thread = await self.history.thread(thread_id) if is_thread_id(thread_id) else None
        if thread is None or not caller.sees(thread.workspace, thread.project):
            raise AppError(ErrorCode.NOT_FOUND, f"There is no thread {thread_id[:100]}.")
        return thread

    async def sandbox_of(self, caller: Principal, thread_id: str) -> str:
        """The name of the thread's sandbox on the sandbox host. Raises AppError NOT_FOUND, UNSUPPORTED."""
        thread = await self.thread_of(caller, thread_id)
        self.sandboxes.check_provider(thread)
        return thread.sandbox_of

    async def run_of(self, caller: Principal, run_id: str) -> Run:
        """Evicted or not. Raises AppError NOT_FOUND, for a run of somebody else too."""
        run = await self.history.run(run_id) if is_run_id(run_id) else None
        if run is None or not caller.sees(run.workspace, run.project):
            raise AppError(ErrorCode.NOT_FOUND, f"There is no run {run_id[:100]}.")
        return run


async def services(connection: HTTPConnection) -> Services:
    found: Services = connection.scope["app"].state.services
    return found


WithServices = Annotated[Services, Depends(services)]


async def identified(connection: HTTPConnection, services: WithServices) -> Principal:
    """Whoever calls, if not too often; what for is not checked."""
    return await _identified(connection, services, ticket=None)


async def _identified(connection: HTTPConnection, services: Services, ticket: str | None) -> Principal:
    principal = connection.scope[PRINCIPAL] = await services.auth.caller(connection, ticket=ticket)
    await services.limits.count(principal, connection)
    return principal


@dataclass(frozen=True, slots=True)
class Needs:
    """Whoever calls with this scope; who runs the installation, where that is asked for."""

    scope: Scope
    operator: bool = False

    async def __call__(self, principal: Annotated[Principal, Depends(identified)]) -> Principal:
        principal.check(self.scope)
        if self.operator:
            principal.check_operator()
        return principal


@dataclass(frozen=True, slots=True)
class StreamNeeds:
    """Streams, WebSockets among them, also take a ticket: a browser can send no header with one. Open ones count."""

    scope: Scope

    async def __call__(
        self, connection: HTTPConnection, services: WithServices, ticket: str | None = None
    ) -> AsyncIterator[Principal]:
        principal = await _identified(connection, services, ticket)
        principal.check(self.scope)
        if class_of(connection) is not RouteClass.STREAM:
            yield principal
            return
        async with services.counted_stream(principal):
            yield principal


Caller = Annotated[Principal, Depends(Needs(Scope.READ))]
"""May read. The others may more: execute and answer; change the catalogue; say who may what."""
Runner = Annotated[Principal, Depends(Needs(Scope.RUN))]
Writer = Annotated[Principal, Depends(Needs(Scope.WRITE))]
Admin = Annotated[Principal, Depends(Needs(Scope.ADMIN))]
Operator = Annotated[Principal, Depends(Needs(Scope.ADMIN, operator=True))]
"""For what concerns all workspaces: no key of one of them does."""
StreamCaller = Annotated[Principal, Depends(StreamNeeds(Scope.READ))]


async def has_room(services: WithServices, _: Annotated[Principal, Depends(identified)]) -> None:
    await services.room.check()


BEGINS_WORK = [Depends(has_room)]
"""For endpoints whose work needs room in Redis."""
IdempotencyKey = Annotated[
    Annotated[str, AfterValidator(a_key), looks_like(IDEMPOTENCY_KEY)] | None,
    Header(
        alias="Idempotency-Key",
        description="Makes it safe to send the request again: the same key and body get the same answer for 24 hours. "
        "What was refused (such as 409 for a busy thread) has not been done, so the same request tries again.",
        examples=["5f0c5b2e-order-1182"],
    ),
]
