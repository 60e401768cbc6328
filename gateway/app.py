"""The gateway as an ASGI application: HTTP in, events out. It keeps nothing that another gateway would miss."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware

from gateway.audit import Audited, AuditLog
from gateway.auth import Authenticator, settings_keys
from gateway.counters import Counters
from gateway.deps import Services
from gateway.errors import add_error_handlers
from gateway.idempotency import Idempotency
from gateway.limits import RateLimits, UsageHeaders
from gateway.metrics import GatewayMetrics
from gateway.middleware import BodyLimit, Exchanges, Faults
from gateway.open_streams import OpenStreams
from gateway.openapi import describe, serve_docs
from gateway.revocations import Revocations
from gateway.room import Room
from gateway.routes import (
    agent_messages,
    agents,
    audit,
    chat,
    contexts,
    events,
    files,
    flows,
    health,
    keys,
    logs,
    metrics,
    ports,
    projects,
    root,
    runs,
    session,
    sockets,
    steps,
    tasks,
    teams,
    threads,
    tools,
    usage,
    workers,
    workflows,
    workspaces,
)
from gateway.sandboxes.host import SandboxHost
from gateway.sandboxes.origins import SandboxOrigins
from gateway.server import WEBSOCKET_LOG
from gateway.stream.fanout import Fanout
from gateway.stream.older import Older
from gateway.stream.open import Streams
from shared.channels import Channels
from shared.config import Settings, load_settings
from shared.db.engine import Database
from shared.events.outside import Outside
from shared.history.changes import Changes
from shared.history.lists import Lists
from shared.history.reads import History
from shared.log import configure_logging
from shared.queue import RunQueue, celery_app
from shared.redis import connect
from shared.slots.slots import agent_slots_of, slots_of
from shared.snapshots.snapshots import Snapshots
from shared.tracing import open_tracing
from shared.version import VERSION
from shared.workers.registry import WorkerRegistry

log = logging.getLogger("trunkline.gateway")

PATIENCE_SECONDS = 2.0
"""How long a request waits for a Redis that is away, before 503: a restart passes unnoticed."""

LAST_WRITES_SECONDS = 0.5

API_PREFIXES = ("/api", "/api/v1")

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(settings: Settings) -> FastAPI:
    """Raises AppError(INVALID_CONFIG) where there is no key to ask for."""
    app = FastAPI(
        title="Trunkline",
        version=VERSION,
        summary="Durable AI agents behind one resumable event stream",
        lifespan=_lifespan(settings, settings_keys(settings)),
        servers=[{"url": "/", "description": "The gateway that serves this description"}],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.metrics, app.state.tracing = GatewayMetrics(), open_tracing(settings.tracing, "gateway")
    for prefix in API_PREFIXES:
        app.include_router(_api(), prefix=prefix, include_in_schema=prefix == API_PREFIXES[0])
    for router in (
        *(root.router, health.router, metrics.router, session.root, ports.root),
        *(flows.root, sockets.router),
    ):
        app.include_router(router)
    for router in (runs.router, logs.router, chat.router, tasks.router):
        app.include_router(router, include_in_schema=False)
    serve_docs(app)
    describe(app)
    add_error_handlers(app)
    _add_middleware(app, settings)
    return app


def from_environment() -> FastAPI:
    """The application of a process of its own (uvicorn's factory)."""
    settings = load_settings()
    configure_logging(settings.log, "gateway")
    # Our access log has the request's id, and no query, which may hold a ticket. This one asks for its handlers only.
    logging.getLogger("uvicorn.access").propagate = False
    logging.getLogger(WEBSOCKET_LOG).setLevel(logging.WARNING)
    return create_app(settings)


def _api() -> APIRouter:
    api = APIRouter()
    for router in (
        flows.router,  # its path would be a thread's
        threads.router,
        files.router,
        ports.api,
        ports.root,
        runs.router,
        logs.router,
        sockets.router,
        steps.router,
        events.router,
        agents.router,
        contexts.router,
        agent_messages.router,
        chat.router,
        teams.router,
        tools.router,
        workflows.router,
        tasks.router,
        usage.router,
        workers.router,
        workspaces.router,
        projects.router,
        keys.router,
        audit.router,
        session.api,
    ):
        api.include_router(router)
    return api


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """Innermost first. What must stand in every answer is outermost, a crash's answer still gets CORS headers."""
    app.add_middleware(Audited)
    app.add_middleware(UsageHeaders)
    app.add_middleware(BodyLimit, max_bytes=settings.api.max_body_bytes, max_upload_bytes=settings.sandbox.upload_bytes)
    app.add_middleware(Faults)
    if settings.api.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.api.cors_origins,
            allow_credentials=settings.api.cors_credentials,
            allow_methods=settings.api.cors_methods,
            allow_headers=settings.api.cors_headers,
            expose_headers=["ETag", "Location", "X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy"],
        )
    app.add_middleware(Exchanges, settings=settings.api, metrics=app.state.metrics, tracing=app.state.tracing)
    app.add_middleware(SandboxOrigins, settings=settings)


def _lifespan(settings: Settings, operator_keys: list[str]) -> Lifespan:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        timeout, connections = settings.redis.timeout_seconds, settings.redis.max_connections
        broker_url = settings.broker_url
        redis = connect(settings.redis.url, timeout_seconds=timeout, max_connections=connections)
        broker = connect(broker_url, timeout_seconds=timeout, max_connections=connections)
        counters_redis = connect(settings.redis.url, timeout_seconds=timeout, max_connections=1)
        streams_redis = connect(settings.redis.url, timeout_seconds=timeout, max_connections=2, text=False)
        database = Database.from_settings(settings)
        fanout = Fanout(
            streams_redis,
            Older(database),
            ring_entries=settings.stream.ring_entries,
            check_seconds=settings.stream.check_seconds,
            metrics=app.state.metrics,
        )
        counters = Counters(counters_redis)
        auth = Authenticator.over(settings, operator_keys, database, counters)
        revocations = Revocations(auth.ring, settings.auth.recheck_seconds)
        slots, agent_slots = slots_of(settings, redis), agent_slots_of(settings, redis)
        queue = RunQueue(celery_app(broker_url), redis, slots, agent_slots=agent_slots)
        outside = Outside.over(redis, settings, queue.ring, patience_seconds=PATIENCE_SECONDS, database=database)
        app.state.services = services = Services(
            settings=settings,
            auth=auth,
            redis=redis,
            broker=broker,
            db=database,
            outside=outside,
            idempotency=Idempotency(redis, patience_seconds=PATIENCE_SECONDS),
            queue=queue,
            workers=WorkerRegistry(redis),
            room=Room(redis, settings.redis.full_at),
            streams=Streams(fanout, settings.stream, revocations),
            revocations=revocations,
            limits=RateLimits(settings.rate_limit, counters),
            open_streams=OpenStreams(counters, settings.stream.max_per_key),
            sandboxes=SandboxHost(settings),
            channels=Channels(redis, settings.stream),
            audit=AuditLog(database, settings.audit, app.state.metrics),
            snapshots=Snapshots(redis, outside.store.payloads, settings.snapshots, patience_seconds=PATIENCE_SECONDS),
            metrics=app.state.metrics,
            history=History(outside.store, database),
            lists=Lists(redis, outside.store, database, patience_seconds=PATIENCE_SECONDS),
            changes=Changes(
                redis,
                outside.store,
                database,
                patience_seconds=PATIENCE_SECONDS,
                replicas=settings.redis.replicas,
            ),
        )
        own = (services.open_streams.keep, auth.ring.keep, revocations.keep, services.audit.run)
        chores = {asyncio.create_task(run()) for run in (fanout.run, counters.run, *own)}
        for chore in chores:
            chore.add_done_callback(_stop_if_crashed)
        services.in_background(services.queue.warm_up())
        yield
        for chore in chores:
            chore.cancel()
        await asyncio.wait({*chores, *services.tasks}, timeout=1)
        await _write_last(services)
        await services.outside.close()
        await services.sandboxes.close()
        for client in (redis, broker, counters_redis, streams_redis):
            await client.aclose()
        await services.db.close()
        services.queue.close()
        await asyncio.to_thread(app.state.tracing.close)

    return lifespan


async def _write_last(services: Services) -> None:
    """What SQL is told later otherwise. A SQL that is away does not keep the gateway from stopping."""
    try:
        async with asyncio.timeout(LAST_WRITES_SECONDS):
            await asyncio.gather(services.audit.close(), services.auth.ring.write_uses())
    except TimeoutError:
        log.warning("the last entries of the audit log are lost: SQL does not answer")


def _stop_if_crashed(chore: asyncio.Task[None]) -> None:
    """Without its reader a gateway would serve streams that say nothing: better that a new one takes its place."""
    if not chore.cancelled() and (error := chore.exception()):
        log.critical("a chore of the gateway crashed, and the gateway stops", exc_info=error)
        os.kill(os.getpid(), signal.SIGTERM)
