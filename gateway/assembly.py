"""The services of a process: made together, kept at work, and closed in the reverse order."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from redis.asyncio import Redis

from gateway.audit import AuditLog
from gateway.auth import Authenticator
from gateway.counters import Counters
from gateway.deps import Services
from gateway.idempotency import Idempotency
from gateway.limits import RateLimits
from gateway.metrics import GatewayMetrics
from gateway.open_streams import OpenStreams
from gateway.patience import PATIENCE_SECONDS
from gateway.revocations import Revocations
from gateway.room import Room
from gateway.sandboxes.host import SandboxHost
from gateway.stream.fanout import Fanout
from gateway.stream.older import Older
from gateway.stream.open import Streams
from shared.channels import Channels
from shared.config import Settings
from shared.db.engine import Database
from shared.events.outside import Outside
from shared.history.changes import Changes
from shared.history.lists import Lists
from shared.history.reads import History
from shared.queue import RunQueue, celery_app
from shared.redis import connect
from shared.slots.slots import agent_slots_of, slots_of
from shared.snapshots.snapshots import Snapshots
from shared.workers.registry import WorkerRegistry

log = logging.getLogger("trunkline.gateway")

LAST_WRITES_SECONDS = 0.5
LAST_CHORES_SECONDS = 1.0
"""How long the end waits for its chores, and for what answers did not wait for."""

Chore = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class _Ground:
    """What the services stand on. Each client has connections of its own."""

    settings: Settings
    metrics: GatewayMetrics
    db: Database
    redis: Redis
    broker: Redis
    counters: Counters
    streams: Redis

    @classmethod
    def of(cls, settings: Settings, metrics: GatewayMetrics, closing: AsyncExitStack) -> Self:
        timeout_seconds, most = settings.redis.timeout_seconds, settings.redis.max_connections

        def client(url: str, max_connections: int, *, text: bool = True) -> Redis:
            made = connect(url, timeout_seconds=timeout_seconds, max_connections=max_connections, text=text)
            closing.push_async_callback(made.aclose)
            return made

        database = Database.from_settings(settings)
        closing.push_async_callback(database.close)
        return cls(
            settings=settings,
            metrics=metrics,
            db=database,
            redis=client(settings.redis.url, most),
            broker=client(settings.broker_url, most),
            counters=Counters(client(settings.redis.url, 1)),
            streams=client(settings.redis.url, 2, text=False),
        )


@asynccontextmanager
async def open_services(
    settings: Settings, operator_keys: list[str], metrics: GatewayMetrics
) -> AsyncIterator[Services]:
    """At work until the block ends. Raises AppError INVALID_CONFIG."""
    async with AsyncExitStack() as closing:
        ground = _Ground.of(settings, metrics, closing)
        fanout = _fanout(ground)
        services = _services(ground, Authenticator.over(settings, operator_keys, ground.db, ground.counters), fanout)
        closing.callback(services.queue.close)
        closing.push_async_callback(services.outside.close)
        closing.push_async_callback(services.sandboxes.close)
        closing.push_async_callback(_write_last, services)
        own = (services.open_streams.keep, services.auth.ring.keep, services.revocations.keep, services.audit.run)
        await closing.enter_async_context(_at_work(services, fanout.run, ground.counters.run, *own))
        services.in_background(services.queue.warm_up())
        yield services


def _services(ground: _Ground, auth: Authenticator, fanout: Fanout) -> Services:
    settings, redis, database = ground.settings, ground.redis, ground.db
    queue = _queue(ground)
    outside = Outside.over(redis, settings, queue.ring, patience_seconds=PATIENCE_SECONDS, database=database)
    store, replicas = outside.store, settings.redis.replicas
    revocations = Revocations(auth.ring, settings.auth.recheck_seconds)
    return Services(
        settings=settings,
        auth=auth,
        redis=redis,
        broker=ground.broker,
        db=database,
        outside=outside,
        idempotency=Idempotency(redis, patience_seconds=PATIENCE_SECONDS),
        queue=queue,
        workers=WorkerRegistry(redis),
        room=Room(redis, settings.redis.full_at),
        streams=Streams(fanout, settings.stream, revocations),
        revocations=revocations,
        limits=RateLimits(settings.rate_limit, ground.counters),
        open_streams=OpenStreams(ground.counters, settings.stream.max_per_key),
        sandboxes=SandboxHost(settings),
        channels=Channels(redis, settings.stream),
        audit=AuditLog(database, settings.audit, ground.metrics),
        snapshots=Snapshots(redis, store.payloads, settings.snapshots, patience_seconds=PATIENCE_SECONDS),
        metrics=ground.metrics,
        history=History(store, database),
        lists=Lists(redis, store, database, patience_seconds=PATIENCE_SECONDS),
        changes=Changes(redis, store, database, patience_seconds=PATIENCE_SECONDS, replicas=replicas),
    )


def _queue(ground: _Ground) -> RunQueue:
    settings, redis = ground.settings, ground.redis
    agent_slots = agent_slots_of(settings, redis)
    return RunQueue(celery_app(settings.broker_url), redis, slots_of(settings, redis), agent_slots=agent_slots)


def _fanout(ground: _Ground) -> Fanout:
    stream = ground.settings.stream
    return Fanout(
        ground.streams,
        Older(ground.db),
        ring_entries=stream.ring_entries,
        check_seconds=stream.check_seconds,
        metrics=ground.metrics,
    )


@asynccontextmanager
async def _at_work(services: Services, *chores: Chore) -> AsyncIterator[None]:
    """What the process does all the time, until the block ends."""
    tasks = {asyncio.create_task(chore()) for chore in chores}
    for task in tasks:
        task.add_done_callback(_stop_if_crashed)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait({*tasks, *services.tasks}, timeout=LAST_CHORES_SECONDS)


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
