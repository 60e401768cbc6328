"""The gateway as an ASGI application: HTTP in, events out. It keeps nothing that another gateway would miss."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware

from gateway.auth import Authenticator
from gateway.counters import Counters
from gateway.deps import Services
from gateway.errors import add_error_handlers
from gateway.idempotency import Idempotency
from gateway.limits import RateLimits, UsageHeaders
from gateway.middleware import BodyLimit, Exchanges, Faults
from gateway.open_streams import OpenStreams
from gateway.openapi import describe, serve_docs
from gateway.room import Room
from gateway.routes import (
    agent_messages,
    agents,
    chat,
    contexts,
    events,
    files,
    health,
    ports,
    root,
    runs,
    session,
    steps,
    threads,
    tools,
    usage,
)
from gateway.sandboxes.host import SandboxHost
from gateway.sandboxes.origins import SandboxOrigins
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
from shared.slots.slots import slots_of
from shared.snapshots.snapshots import Snapshots
from shared.version import VERSION
from shared.workers.registry import WorkerRegistry

log = logging.getLogger("trunkline.gateway")

PATIENCE_SECONDS = 2.0
"""How long a request waits for a Redis that is away, before 503: a restart passes unnoticed."""

API_PREFIXES = ("/api", "/api/v1")

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(settings: Settings) -> FastAPI:
    """Raises AppError(INVALID_CONFIG) where there is no key to ask for."""
    app = FastAPI(
        title="Trunkline",
        version=VERSION,
        summary="Durable AI agents behind one resumable event stream",
        lifespan=_lifespan(settings, Authenticator.from_settings(settings)),
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    for prefix in API_PREFIXES:
        app.include_router(_api(), prefix=prefix, include_in_schema=prefix == API_PREFIXES[0])
    for router in (root.router, health.router, session.root, ports.root):
        app.include_router(router)
    app.include_router(chat.router, include_in_schema=False)
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
    return create_app(settings)


def _api() -> APIRouter:
    api = APIRouter()
    for router in (
        threads.router,
        files.router,
        ports.api,
        ports.root,
        runs.router,
        steps.router,
        events.router,
        agents.router,
        contexts.router,
        agent_messages.router,
        chat.router,
        tools.router,
        usage.router,
        session.api,
    ):
        api.include_router(router)
    return api


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """Innermost first. What must stand in every answer is outermost, a crash's answer still gets CORS headers."""
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
            expose_headers=["X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy"],
        )
    app.add_middleware(Exchanges)
    app.add_middleware(SandboxOrigins, settings=settings)


def _lifespan(settings: Settings, auth: Authenticator) -> Lifespan:
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
        )
        counters = Counters(counters_redis)
        queue = RunQueue(celery_app(broker_url), redis, slots_of(settings, redis))
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
            streams=Streams(fanout, settings.stream),
            limits=RateLimits(settings.rate_limit, counters),
            open_streams=OpenStreams(counters, settings.stream.max_per_key),
            sandboxes=SandboxHost(settings),
            channels=Channels(redis, settings.stream),
            snapshots=Snapshots(redis, outside.store.payloads, settings.snapshots, patience_seconds=PATIENCE_SECONDS),
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
        chores = {asyncio.create_task(run()) for run in (fanout.run, counters.run, services.open_streams.keep)}
        for chore in chores:
            chore.add_done_callback(_stop_if_crashed)
        services.in_background(services.queue.warm_up())
        yield
        for chore in chores:
            chore.cancel()
        await asyncio.wait({*chores, *services.tasks}, timeout=1)
        await services.outside.close()
        await services.sandboxes.close()
        for client in (redis, broker, counters_redis, streams_redis):
            await client.aclose()
        await services.db.close()
        services.queue.close()

    return lifespan


def _stop_if_crashed(chore: asyncio.Task[None]) -> None:
    """Without its reader a gateway would serve streams that say nothing: better that a new one takes its place."""
    if not chore.cancelled() and (error := chore.exception()):
        log.critical("a chore of the gateway crashed, and the gateway stops", exc_info=error)
        os.kill(os.getpid(), signal.SIGTERM)
