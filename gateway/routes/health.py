"""Is it up, and is all of it up: for people, load balancers and orchestrators."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Literal, TypeVar

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from redis.exceptions import RedisError

from gateway.deps import WithServices
from gateway.errors import redis_away, status_of
from gateway.openapi import errors
from shared.queue import queue_lengths
from shared.types import JSON
from shared.version import VERSION

ANSWER_SECONDS = 2.0
"""A Redis that takes longer counts as away: whoever asks does not wait for ever either."""

router = APIRouter(tags=["health"])

Status = Literal["ok", "degraded", "unavailable"]
T = TypeVar("T")


class RedisHealth(BaseModel):
    status: Status
    latency_ms: float | None


class QueueHealth(BaseModel):
    status: Status
    depth: int | None = Field(description="Messages about runs that no worker has taken yet.")


class WorkersHealth(BaseModel):
    status: Status
    alive: int | None


class ConfigHealth(BaseModel):
    env: str
    auth: Literal["keys", "off"]


class Health(BaseModel):
    """`degraded`: runs are accepted, but something is missing that would execute them now."""

    status: Status
    version: str
    redis: RedisHealth
    queue: QueueHealth
    workers: WorkersHealth
    config: ConfigHealth


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


PUBLIC: JSON = {"security": []}


@router.get(
    "/health",
    operation_id="getHealth",
    summary="The state of the whole",
    responses={503: {"model": Health, "description": "Redis is away."}},
    openapi_extra=PUBLIC,
)
async def health(services: WithServices, response: Response) -> Health:
    began = time.perf_counter()
    up, queues, workers = await asyncio.gather(
        _answer(services.redis.ping()), _answer(queue_lengths(services.broker)), _answer(services.workers.alive())
    )
    depth = None if queues is None else sum(queues.values())
    latency_ms = round((time.perf_counter() - began) * 1000, 2) if up else None
    report = Health(
        status="unavailable" if not up else "ok" if workers and depth is not None else "degraded",
        version=VERSION,
        redis=RedisHealth(status="ok" if up else "unavailable", latency_ms=latency_ms),
        queue=QueueHealth(status="unavailable" if depth is None else "ok", depth=depth),
        workers=WorkersHealth(
            status="ok" if workers else "unavailable", alive=None if workers is None else len(workers)
        ),
        config=ConfigHealth(env=services.settings.env, auth="keys" if services.settings.auth.enabled else "off"),
    )
    if not up:
        response.status_code = status_of(redis_away().code)
    return report


@router.get("/health/live", operation_id="isAlive", summary="The process answers", openapi_extra=PUBLIC)
async def live() -> Alive:
    return Alive()


@router.get(
    "/health/ready",
    operation_id="isReady",
    summary="It can do its work",
    responses=errors(),
    openapi_extra=PUBLIC,
)
async def ready(services: WithServices) -> Alive:
    if await _answer(services.redis.ping()) is None:
        raise redis_away()
    return Alive()


async def _answer(question: Awaitable[T]) -> T | None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await question
    except (RedisError, TimeoutError):
        return None
