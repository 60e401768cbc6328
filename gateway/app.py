"""The gateway as an ASGI application: HTTP in, events out. It keeps nothing that another gateway would miss."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware

from gateway.assembly import open_services
from gateway.audit import Audited
from gateway.auth import settings_keys
from gateway.errors import add_error_handlers
from gateway.limits import UsageHeaders
from gateway.metrics import GatewayMetrics
from gateway.middleware import BodyLimit, Exchanges, Faults
from gateway.openapi import describe, serve_docs
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
from gateway.sandboxes.origins import SandboxOrigins
from gateway.server import WEBSOCKET_LOG
from shared.config import Settings, load_settings
from shared.garbage import settle
from shared.log import configure_logging
from shared.tracing import open_tracing
from shared.version import VERSION

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
    app = create_app(settings)
    settle()
    return app


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
        async with open_services(settings, operator_keys, app.state.metrics) as services:
            app.state.services = services
            yield
        await asyncio.to_thread(app.state.tracing.close)

    return lifespan
