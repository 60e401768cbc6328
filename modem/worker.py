"""One worker process: an asyncio loop shared by all its runs, its lease, its sweeper, its drain.

Celery's threads hand runs to the loop and wait. `execute` may be called from any thread, the rest from the main one.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import uvloop
from celery import Celery
from redis.asyncio import Redis
from redis.exceptions import RedisError

from modem.agenda import Agenda
from modem.archive import Archiver
from modem.hooks import HookSweeper
from modem.lease import Lease
from modem.metrics import ChoreMetrics
from modem.orphans import OrphanSweeper
from modem.port import WorkerPort, open_port
from modem.retention import Retention
from modem.sweep import Sweeper
from shared.config import Settings
from shared.db.engine import Database
from shared.events.outside import Outside
from shared.history.changes import Changes
from shared.queue import RunQueue
from shared.redis import connect, patiently
from shared.slots.slots import agent_slots_of, slots_of
from shared.tasks import cancel
from shared.threads.archiving import Archiving
from shared.threads.store import ThreadStore
from shared.version import VERSION
from shared.workers.catalogue import tell_catalogue
from shared.workers.registry import WorkerRegistry
from shared.workers.tools import TELL_SECONDS, catalogue_version, tell_tools
from workflow.runner import Runner, Signals, take_from
from workflow.runtime import Runtime, open_runtime
from workflow.sandbox.base import SandboxProvider
from workflow.sandbox.local import LocalProvider
from workflow.sandbox.orphans import sweep_machines, sweep_workspaces
from workflow.sandbox.remote_provider import RemoteProvider

log = logging.getLogger("trunkline.worker")

TICK_SECONDS = 0.5
CANCEL_CHECK_SECONDS = 0.5
SWEEP_PATIENCE_SECONDS = 2.0


class Worker:
    """`producer` sends messages about the runs that follow."""

    def __init__(self, settings: Settings, producer: Celery, label: str) -> None:
        self._settings = settings
        self._producer = producer
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="runtime", daemon=True)
        self._lease = Lease(settings.worker, settings.redis, label)
        self._signals = Signals()
        self._leaving = threading.Event()
        self._resources = AsyncExitStack()
        self._chores: list[asyncio.Task[None]] = []
        self._orphans: OrphanSweeper | None = None
        self._port: WorkerPort | None = None

    def start(self) -> None:
        """Loads the runtime and registers the worker; it is ready when this returns."""
        self._thread.start()
        self._call(self._open())
        self._port = open_port(
            self._settings.metrics, self._registry, alive=self._turns, ready=lambda: self._lease.name is not None
        )
        self._lease.start(self._on_lost, self._functions, self._card())
        self._call(self._start_chores())
        log.info("ready for %s runs at once", self._settings.worker.concurrency)

    def execute(self, run_id: str) -> None:
        """Runs one attempt to its end. Returns at once where the run is not to be had."""
        self._call(self._execute(run_id))

    def drain(self, *, after_seconds: float = 0) -> None:
        """Claims no run any more, starts no new step, and gives back what still runs after `drain_seconds`.

        Returns at once. The claims end now, the rest begins `after_seconds` from now, unless it has by then.
        """
        self._leaving.set()
        self._loop.call_soon_threadsafe(self._loop.call_later, after_seconds, self._drain)

    def _drain(self) -> None:
        if not self._signals.draining.is_set():
            log.info("draining: runs go on elsewhere within %s s", self._settings.worker.drain_seconds)
            self._signals.draining.set()
            self._loop.call_later(self._settings.worker.drain_seconds, self._signals.out_of_time.set)

    def stop(self) -> None:
        """Call it when no run is left."""
        self._call(self._close())
        self._lease.stop()
        if self._port:
            self._port.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._queue.close()
        log.info("stopped")

    async def _open(self) -> None:
        redis = self._settings.redis
        client, broker = (
            connect(url, timeout_seconds=redis.timeout_seconds, max_connections=redis.max_connections)
            for url in (redis.url, self._settings.broker_url)
        )
        self._resources.push_async_callback(client.aclose)
        self._resources.push_async_callback(broker.aclose)
        database = Database.from_settings(self._settings)
        self._resources.push_async_callback(database.close)
        slots, agent_slots = slots_of(self._settings, client), agent_slots_of(self._settings, client)
        self._queue = RunQueue(self._producer, client, slots, agent_slots=agent_slots)
        # The runs' owner waits for Redis as long as it takes; the sweeper tries again at its next turn.
        outside, impatient = (
            Outside.over(client, self._settings, self._queue.ring, patience_seconds=patience, database=database)
            for patience in (None, SWEEP_PATIENCE_SECONDS)
        )
        self._resources.push_async_callback(outside.close)
        self._resources.push_async_callback(impatient.close)
        self._store = outside.store
        runtime = await self._resources.enter_async_context(open_runtime(self._settings, client))
        self._functions = runtime.functions.had
        self._runtime = runtime
        self._catalogue = catalogue_version(runtime.tool_cards(), self._functions)
        self._registry = runtime.observer.metrics.registry
        await self._tell()
        self._orphans = _orphan_sweeper(runtime.sandboxes, client, database)
        self._runner = Runner(outside, runtime)
        self._resources.push_async_callback(self._runner.close)
        self._agenda = Agenda(impatient)
        archiving = Archiving(client, patience_seconds=SWEEP_PATIENCE_SECONDS, replicas=redis.replicas)
        metrics = ChoreMetrics(self._registry)
        self._archiver = Archiver(
            *(self._settings.archive, database, impatient.store.payloads, archiving, WorkerRegistry(client)),
            metrics=metrics,
        )
        changes = Changes(
            client, impatient.store, database, patience_seconds=SWEEP_PATIENCE_SECONDS, replicas=redis.replicas
        )
        self._retention = Retention(self._settings.archive.retention_days, database, changes, WorkerRegistry(client))
        self._hooks = HookSweeper(database, impatient, WorkerRegistry(client))
        self._sweeper = Sweeper(
            self._settings.worker,
            client=client,
            broker=broker,
            registry=WorkerRegistry(client),
            queue=self._queue,
            running=self._runner.running,
            take_from=partial(self._take_from, store=impatient.store, runtime=runtime),
            metrics=metrics,
        )

    async def _start_chores(self) -> None:
        chores = [
            self._keep_ticking(),
            self._watch_cancels(),
            self._sweeper.run(self._lease),
            self._agenda.run(self._lease, self._settings.worker.sweep_seconds),
            self._archiver.run(self._lease),
            self._retention.run(self._lease),
            self._hooks.run(self._lease),
            self._keep_told(),
        ]
        if self._orphans:
            chores.append(self._orphans.run(self._lease))
        for chore in chores:
            self._chores.append(asyncio.create_task(_supervised(chore)))

    async def _close(self) -> None:
        await cancel(self._chores)
        await self._resources.aclose()

    async def _execute(self, run_id: str) -> None:
        name = await self._registered_name()
        if name is None:
            await self._queue.ring(run_id)
        elif await self._queue.admit(run_id):
            following = await self._runner.execute(run_id, name, self._signals)
            await self._queue.leave(run_id, patience_seconds=None)
            await self._queue.ring(following)

    async def _take_from(self, worker: str, run_id: str, *, store: ThreadStore, runtime: Runtime) -> str | None:
        following = await take_from(worker, run_id, store, runtime, patience_seconds=SWEEP_PATIENCE_SECONDS)
        await self._queue.leave(run_id, patience_seconds=SWEEP_PATIENCE_SECONDS)
        return following

    async def _registered_name(self) -> str | None:
        """Under which runs are claimed; None once the worker stops. A buried worker waits here for its new one."""
        while not self._leaving.is_set():
            if self._lease.name is not None:
                return self._lease.name
            await asyncio.sleep(TICK_SECONDS)
        return None

    async def _tell(self) -> None:
        runtime = self._runtime
        runtime.mcp.changed.clear()
        cards = runtime.tool_cards()
        runtime.observer.tools.update(card.name for card in cards)
        await patiently(partial(tell_tools, runtime.redis, cards), None)
        await patiently(partial(tell_catalogue, runtime.redis, runtime.catalogue()), None)

    async def _keep_told(self) -> None:
        """Again from time to time, and when an MCP server that was away has come."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TELL_SECONDS):
                    await self._runtime.mcp.changed.wait()
            await self._tell()

    def _turns(self) -> bool:
        return self._lease.standstill() < self._settings.worker.hang_seconds

    def _card(self) -> dict[str, str | int]:
        port = {"metrics_port": self._port.number} if self._port else {}
        return {"version": VERSION, "catalogue": self._catalogue, **port}

    def _on_lost(self, name: str) -> None:
        self._loop.call_soon_threadsafe(self._runner.drop, name)

    async def _keep_ticking(self) -> None:
        while True:
            self._lease.tick()
            await asyncio.sleep(TICK_SECONDS)

    async def _watch_cancels(self) -> None:
        """An attempt learns of its cancel with its next write; this is for one that waits for a tool or a model."""
        while True:
            await asyncio.sleep(CANCEL_CHECK_SECONDS)
            try:
                for run_id in await self._store.cancel_requested(self._runner.running()):
                    self._runner.cancel(run_id)
            except RedisError as error:
                log.warning("could not look for canceled runs: %s", error)

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _orphan_sweeper(sandboxes: SandboxProvider, client: Redis, database: Database) -> OrphanSweeper | None:
    registry = WorkerRegistry(client)
    if isinstance(sandboxes, RemoteProvider):
        return OrphanSweeper(partial(sweep_machines, sandboxes.cloud), client, database, registry)
    if isinstance(sandboxes, LocalProvider):
        return OrphanSweeper(partial(sweep_workspaces, sandboxes), client, database, registry, by_all=True)
    return None


async def _supervised(chore: Coroutine[Any, Any, None]) -> None:
    """A chore that dies would leave the worker half alive, so the process ends and its runs go on elsewhere."""
    try:
        await chore
    except Exception:
        log.critical("a chore of the worker died", exc_info=True)
        os._exit(1)
