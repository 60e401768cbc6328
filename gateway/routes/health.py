"""Is it up, and is all of it up: for people, load balancers and orchestrators."""

import os
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from gateway.checks import Finding, findings
from gateway.deps import Operator, WithServices
from gateway.errors import RETRY_SECONDS, status_of
from gateway.openapi import errors, public_errors
from gateway.routes.answers import Timestamp
from shared.errors import AppError, ErrorCode
from shared.types import Priority
from shared.version import VERSION

router = APIRouter(tags=["health"])

Status = Literal["ok", "degraded", "unavailable"]


class Component(BaseModel):
    status: Status
    latency_ms: float | None


class QueueHealth(BaseModel):
    status: Status
    depth: int | None = Field(description="Messages about runs that no worker has taken yet.")


class WorkersHealth(BaseModel):
    status: Status
    alive: int | None


class ConfigHealth(BaseModel):
    status: Status = Field(default="ok", description="A gateway does not start with a configuration that is not.")
    env: str
    auth: Literal["keys", "off"]


class Health(BaseModel):
    """`degraded`: runs are accepted, but something is missing that would execute them now."""

    status: Status
    version: str
    redis: Component
    database: Component
    queue: QueueHealth
    workers: WorkersHealth
    config: ConfigHealth


class RedisDetails(BaseModel):
    version: str
    used_bytes: int
    max_bytes: int = Field(description="0: no limit.")
    clients: int


class ConfigDetails(BaseModel):
    database: Literal["sqlite", "postgresql"]
    payloads: str
    sandbox: str
    tracing: bool


class HealthDetails(Health):
    started_at: Timestamp = Field(description="This gateway process.")
    pid: int
    queues: dict[Priority, int] | None = Field(description="The queue's depth by priority.")
    worker_names: list[str] | None
    redis_details: RedisDetails | None
    config_details: ConfigDetails


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


@router.get(
    "/health",
    operation_id="getHealth",
    summary="The state of the whole",
    responses={**public_errors(), 503: {"model": Health, "description": "Redis or the database is away."}},
)
async def health(services: WithServices, response: Response) -> Health:
    """For everybody: what is there and what is not, and nothing of where it is."""
    report = _report(await findings(services), services)
    if report.status == "unavailable":
        response.status_code = status_of(ErrorCode.UNAVAILABLE)
    return report


@router.get("/health/live", operation_id="isAlive", summary="The process answers", responses=public_errors())
async def live() -> Alive:
    return Alive()


@router.get(
    "/health/ready",
    operation_id="isReady",
    summary="It can do its work",
    responses=public_errors(503),
)
async def ready(services: WithServices) -> Alive:
    """Redis and the database answer."""
    found = await findings(services)
    if away := [name for name, finding in found.items() if finding.needed and not finding.there]:
        detail = f"Nothing is lost, but not everything answers: {', '.join(away)}. Try again soon."
        raise AppError(ErrorCode.UNAVAILABLE, detail, retry_after=RETRY_SECONDS)
    return Alive()


@router.get(
    "/health/status", operation_id="getHealthStatus", summary="The state of the whole, in detail", responses=errors()
)
async def status(services: WithServices, _: Operator) -> HealthDetails:
    """For the operator's keys only. 200 whatever it finds."""
    found = await findings(services)
    return HealthDetails(
        **_report(found, services).model_dump(),
        started_at=services.started_at,
        pid=os.getpid(),
        queues=found["queue"].value,
        worker_names=found["workers"].value,
        redis_details=await _redis_details(services) if found["redis"].there else None,
        config_details=ConfigDetails(
            database="sqlite" if services.db.is_sqlite else "postgresql",
            payloads=services.settings.payloads.store,
            sandbox=services.settings.sandbox.provider,
            tracing=services.settings.tracing.endpoint is not None,
        ),
    )


def _report(found: dict[str, Finding], services: WithServices) -> Health:
    queues, workers = found["queue"].value, found["workers"].value
    whole = workers and all(finding.there for finding in found.values())
    missing = any(finding.needed and not finding.there for finding in found.values())
    return Health(
        status="unavailable" if missing else "ok" if whole else "degraded",
        version=VERSION,
        redis=_component(found["redis"]),
        database=_component(found["database"]),
        queue=QueueHealth(status=_status(found["queue"].there), depth=None if queues is None else sum(queues.values())),
        workers=WorkersHealth(status=_status(bool(workers)), alive=None if workers is None else len(workers)),
        config=ConfigHealth(env=services.settings.env, auth="keys" if services.settings.auth.enabled else "off"),
    )


def _component(finding: Finding) -> Component:
    return Component(status=_status(finding.there), latency_ms=finding.latency_ms)


def _status(there: bool) -> Status:
    return "ok" if there else "unavailable"


async def _redis_details(services: WithServices) -> RedisDetails:
    info = await services.redis.info()
    return RedisDetails(
        version=info.get("valkey_version") or info["redis_version"],
        used_bytes=info["used_memory"],
        max_bytes=info["maxmemory"],
        clients=info["connected_clients"],
    )
