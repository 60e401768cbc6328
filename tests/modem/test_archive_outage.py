"""Postgres stopped while runs go on: they do not notice, and the history is complete afterwards."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from modem.archive import Archiver
from shared.config import ArchiveSettings, Settings
from shared.db import history
from shared.db.engine import Database
from shared.db.schema import upgrade
from shared.events.outside import Outside
from shared.ids import SHARDS, new_run_id, new_thread_id, stream_position
from shared.keys import dirty
from shared.tasks import cancel
from shared.threads.archiving import Archiving
from shared.threads.attempt import Change
from shared.threads.steps import StepRecord
from shared.threads.types import NewEvent, NewRun, NewThread
from shared.types import RunStatus, StepStatus
from shared.workers.registry import WorkerRegistry
from tests.support.databases import postgres_server
from tests.support.postgres import Postgres

SETTINGS = ArchiveSettings(every_seconds=0.05, keep_events_seconds=3600, evict_after_seconds=3600)
CAUGHT_UP_SECONDS = 60
STOP_SECONDS = 4  # for Postgres to stop while all runs go on


class Alone(WorkerRegistry):
    name = "w1"

    async def names(self) -> list[str]:
        return [self.name]


@pytest.fixture
async def server() -> AsyncIterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.mark.parametrize(("runs", "seconds"), [(20, 1.0), pytest.param(200, 60.0, marks=pytest.mark.slow)])
async def test_runs_do_not_notice_that_postgres_is_away(
    client: Redis, server: Postgres, runs: int, seconds: float
) -> None:
    async def ring(_: str | None) -> None: ...

    database = Database(server.url("postgres"))
    await upgrade(database)
    out = Outside.over(client, Settings(), ring, patience_seconds=5, database=database)
    registry = Alone(client)
    archiver = Archiver(SETTINGS, database, out.store.payloads, Archiving(client, patience_seconds=5), registry)
    archiving = asyncio.create_task(archiver.run(registry))
    work = [asyncio.create_task(_run(out, steps=20, seconds=1.5 * seconds + STOP_SECONDS)) for _ in range(runs)]
    await asyncio.sleep(0.25 * seconds)
    await asyncio.to_thread(server.stop)
    assert not any(task.done() for task in work)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(server.start)
    run_ids = await asyncio.gather(*work)
    async with asyncio.timeout(CAUGHT_UP_SECONDS):
        while [shard for shard in range(SHARDS) if await _hash(client, dirty(shard))]:
            await asyncio.sleep(0.05)
    await cancel([archiving])
    await _judge(out, database, run_ids)
    await database.close()


async def _run(out: Outside, *, steps: int, seconds: float) -> str:
    """That takes so long."""
    thread_id = new_thread_id()
    await out.store.create_thread(NewThread(thread_id, "w"))
    run_id = new_run_id(thread_id)
    await out.store.submit(NewRun(run_id, "w", {"task": "x"}), queued={})
    attempt = await out.store.claim(run_id, "w1", secrets.token_hex(4))
    assert attempt
    for number in range(1, steps + 1):
        step = StepRecord(f"k{number}", number, "k", "t", StepStatus.SUCCEEDED, "h", result=number)
        await attempt.commit(Change([step], [], [NewEvent("step.completed", {"key": step.key}, number)]))
        await asyncio.sleep(seconds / steps)
    await attempt.end(RunStatus.SUCCEEDED, {"output": "y"}, {"output": "y"})
    return run_id


async def _judge(out: Outside, database: Database, run_ids: list[str]) -> None:
    for run in await out.store.runs(run_ids):
        assert run.status is RunStatus.SUCCEEDED
        async with database.connect() as c:
            archived = await history.run(c, run.id)
            assert archived
            assert archived.record["status"] == "succeeded"
            assert await history.run_steps(c, run.id) == await out.store.journal(run.id)
            events = await history.run_events(c, run.id, after=(0, 0), before=None, count=99)
        assert events == await out.store.events(run.thread_id)
        assert [event.id for event in events] == sorted({e.id for e in events}, key=stream_position)


async def _hash(client: Redis, name: str) -> dict[str, str]:
    found: dict[str, str] = await client.hgetall(name)  # type: ignore[assignment]
    return found
