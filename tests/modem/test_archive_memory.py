"""Redis' memory follows live work, not history. `-s` prints the figures."""

import asyncio
import secrets

import pytest
from redis.asyncio import Redis

from modem.archive import Archiver
from shared.config import ArchiveSettings, Settings
from shared.db import history
from shared.db.engine import Database
from shared.events.outside import Outside
from shared.ids import SHARDS, new_run_id, new_thread_id
from shared.tenant import Tenant
from shared.threads.archiving import Archiving
from shared.threads.attempt import Change
from shared.threads.steps import StepRecord
from shared.threads.types import NewEvent, NewRun, NewThread
from shared.types import RunStatus, StepStatus

AT_ONCE = ArchiveSettings.model_construct(
    every_seconds=1, keep_events_seconds=0.0, evict_after_seconds=-1, retention_days=0
)
SIDE_BY_SIDE = 20


@pytest.mark.parametrize("runs", [300, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_finished_runs_leave_no_memory_in_use(client: Redis, database: Database, runs: int) -> None:
    async def ring(_: str | None) -> None: ...

    out = Outside.over(client, Settings(), ring, patience_seconds=5, database=database)
    archiver = Archiver(AT_ONCE, database, out.store.payloads, Archiving(client, patience_seconds=5), out.fleet)
    # Scripts, connections and buffers are there from then on.
    await asyncio.gather(*(_finish(out, 3) for _ in range(SIDE_BY_SIDE)))
    await archiver.tick(range(SHARDS))
    before = await _used(client)
    for _ in range(0, runs, SIDE_BY_SIDE):
        await asyncio.gather(*(_finish(out, 1) for _ in range(SIDE_BY_SIDE)))
    full = await _used(client)
    await archiver.tick(range(SHARDS))
    after = await _used(client)
    print(f"Redis before {before:,}, with {runs:,} finished runs {full:,}, after their eviction {after:,} bytes")
    assert await client.dbsize() == 0
    assert after <= 1.1 * before
    async with database.connect() as c:
        assert len(await history.thread_ids(c, Tenant("w"), before=None, limit=runs + 61)) == runs + 60


async def _finish(out: Outside, runs: int) -> None:
    """Each in a thread of its own, with three steps."""
    for _ in range(runs):
        thread_id = new_thread_id()
        await out.store.create_thread(NewThread(thread_id, "w"))
        run_id = new_run_id(thread_id)
        await out.store.submit(NewRun(run_id, "w", {"task": "x" * 100}), queued={})
        attempt = await out.store.claim(run_id, "w1", secrets.token_hex(4))
        assert attempt
        for number in range(3):
            step = StepRecord(f"k{number}", number, "k", "t", StepStatus.SUCCEEDED, "h", result="r" * 200)
            event = NewEvent("step.completed", {"key": step.key}, number)
            await attempt.commit(Change([step], [{"role": "assistant", "content": "m" * 200}], [event]))
        await attempt.end(RunStatus.SUCCEEDED, {"output": "y"}, {"output": "y" * 100})


async def _used(client: Redis) -> int:
    return int((await client.info("memory"))["used_memory"])
