"""The archiver over a real Valkey and real databases: what is in SQL, and what comes back from it."""

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from redis.asyncio import Redis

from modem.archive import SET_ASIDE_PASSES, Archiver
from modem.metrics import ChoreMetrics
from shared import keys
from shared.config import ArchiveSettings, Settings
from shared.db import history
from shared.db.engine import Database
from shared.errors import AppError, ErrorCode
from shared.events.outside import Outside
from shared.history.revival import Revival
from shared.ids import SHARDS, new_run_id, new_thread_id, shard_of, thread_of
from shared.keys import ThreadKeys, dirty, idle
from shared.tenant import Tenant
from shared.threads.archiving import Archiving, RecordCopy
from shared.threads.attempt import Attempt, Change
from shared.threads.steps import StepRecord
from shared.threads.types import NewEvent, NewRun, NewThread
from shared.types import RunStatus, StepStatus
from shared.workers.registry import WorkerRegistry
from tests.support.metrics import value

ALL = range(SHARDS)
AT_ONCE = ArchiveSettings.model_construct(
    every_seconds=1, keep_events_seconds=0.0, evict_after_seconds=-1, retention_days=0
)
"""Nothing stays in Redis that need not."""
LATER = ArchiveSettings()


@dataclass
class House:
    client: Redis
    database: Database
    out: Outside
    archiver: Archiver
    later: Archiver
    metrics: ChoreMetrics
    runs: list[str] = field(default_factory=list)

    async def thread(self) -> str:
        return (await self.out.store.create_thread(NewThread(new_thread_id(), "w", {"a": 1}))).id

    async def submit(self, thread_id: str, run_id: str | None = None, size: int = 1) -> str:
        run_id = run_id or new_run_id(thread_id)
        await self.out.store.submit(NewRun(run_id, "w", {"task": "x" * size}, user_uuid="a\0b"), queued={})
        return run_id

    async def claim(self, run_id: str) -> Attempt:
        attempt = await self.out.store.claim(run_id, "w1", secrets.token_hex(4))
        assert attempt
        return attempt

    async def finished(self, thread_id: str, size: int = 1) -> str:
        """A run with a step, a message, an event and an output of so many bytes."""
        run_id = await self.submit(thread_id, size=size)
        attempt = await self.claim(run_id)
        await attempt.commit(a_step(1, "x" * size))
        await attempt.end(RunStatus.SUCCEEDED, {"output": "y"}, {"output": "y" * size})
        return run_id

    async def left(self) -> list[str]:
        return [key async for key in self.client.scan_iter("*")]


def a_step(number: int, result: str = "") -> Change:
    step = StepRecord(f"k{number}", number, "k", "t", StepStatus.SUCCEEDED, "h", result=result)
    event = NewEvent("step.completed", {"key": step.key}, number)
    return Change([step], [{"role": "assistant", "content": str(number)}], [event])


@pytest.fixture
async def house(client: Redis, database: Database) -> House:
    async def ring(_: str | None) -> None: ...

    out = Outside.over(client, Settings(), ring, patience_seconds=2, database=database)
    archiving, metrics = Archiving(client, patience_seconds=2), ChoreMetrics(CollectorRegistry())
    at_once, later = (
        Archiver(how, database, out.store.payloads, archiving, WorkerRegistry(client), metrics=metrics)
        for how in (AT_ONCE, LATER)
    )
    return House(client, database, out, at_once, later, metrics)


async def test_what_runs_did_is_in_sql_and_is_dirty_no_more(house: House) -> None:
    thread_id = await house.thread()
    run_id = await house.finished(thread_id)
    events = await house.out.store.events(thread_id)
    await house.later.tick(ALL)
    assert await house.client.hgetall(dirty(shard_of(thread_id))) == {}
    async with house.database.connect() as c:
        run = await history.run(c, run_id)
        assert run
        assert run.record == await house.client.hgetall(ThreadKeys(thread_id).run(run_id))
        assert await history.run_steps(c, run_id) == await house.out.store.journal(run_id)
        assert await history.thread_events(c, thread_id, after=(0, 0), before=None, count=99) == events


async def test_an_idle_thread_leaves_redis_whole_and_comes_back_with_rising_ids(house: House) -> None:
    thread_id = await house.thread()
    run_id = await house.finished(thread_id, size=100_000)
    store = house.out.store
    before, messages = await store.thread(thread_id), await store.messages(thread_id)
    run = await store.run(run_id)
    assert before
    assert run
    await house.archiver.tick(ALL)
    assert await house.left() == []
    again = await house.submit(thread_id)
    after = await store.thread(thread_id)
    assert after
    assert (after.created_at, after.metadata, after.head) == (before.created_at, before.metadata, again)
    assert after.last_id > before.last_id
    assert await store.messages(thread_id) == messages
    assert orjson.dumps(await store.payloads.value(run.output, run.output_ref)) == orjson.dumps("y" * 100_000)
    attempt = await house.claim(again)
    await attempt.commit(a_step(1))
    await attempt.end(RunStatus.SUCCEEDED, {"output": "y"}, {})
    await house.archiver.tick(ALL)
    assert await house.left() == []
    async with house.database.connect() as c:
        found = await history.thread_events(c, thread_id, after=(0, 0), before=None, count=99)
        assert [event.type for event in found] == 2 * [
            *("run.queued", "run.started", "step.completed", "run.completed"),
        ]
        assert len(await history.conversation(c, thread_id)) == 2


async def test_a_run_comes_back_however_many_have_answered_it(house: House) -> None:
    """Each answer that has a name is a field of its record."""
    thread_id = await house.thread()
    run_id = await house.finished(thread_id)
    answers: dict[Any, Any] = {f"answer:{number}": "k1" for number in range(10_000)}
    await house.client.hset(ThreadKeys(thread_id).run(run_id), mapping=answers)
    await house.archiver.tick(ALL)
    assert await house.left() == []
    assert await house.out.store.bring_back(thread_id, run_id)
    found = await house.client.hgetall(ThreadKeys(thread_id).run(run_id))
    assert answers.items() <= found.items()


async def test_a_run_that_is_submitted_again_after_it_left_is_not_run_again(house: House) -> None:
    thread_id = await house.thread()
    run_id = await house.finished(thread_id)
    await house.archiver.tick(ALL)
    new = NewRun(run_id, "w", {"task": "x"})
    assert (await house.out.store.submit(new, queued={})).status is RunStatus.SUCCEEDED
    await house.archiver.tick(ALL)
    await house.submit(thread_id)
    assert (await house.out.store.submit(new, queued={})).status is RunStatus.SUCCEEDED


async def test_an_old_copy_of_a_thread_that_leaves_meanwhile_does_not_come_back(house: House) -> None:
    thread_id = await house.thread()
    old_run = await house.finished(thread_id)
    await house.archiver.tick(ALL)
    await house.finished(thread_id)
    await house.later.tick(ALL)
    messages = await house.out.store.messages(thread_id)

    class Slow(Revival):
        """It goes on when what it has read of SQL is not the latest any more."""

        async def _revive(self, thread: history.ArchivedThread, messages: list[str], began_ms: int) -> str:
            await house.archiver.tick(ALL)
            return await super()._revive(thread, messages, began_ms)

        async def _revive_run(self, run: RecordCopy, journal: list[tuple[str, int, str]]) -> str:
            if not archived:
                archived.append(run.id)
                await house.archiver.tick(ALL)
            return await super()._revive_run(run, journal)

    archived: list[str] = []
    assert await Slow(house.client, house.database, patience_seconds=2).revive(thread_id, old_run)
    assert await house.out.store.messages(thread_id) == messages


async def test_a_thread_with_more_changes_than_a_query_takes_is_archived_in_parts(house: House) -> None:
    thread_id = await house.thread()
    runs = [new_run_id(thread_id) for _ in range(2500)]
    await house.client.hset(dirty(shard_of(thread_id)), mapping=dict.fromkeys(runs, 1))
    batches = [batch async for batch in Archiving(house.client, patience_seconds=2).dirty(ALL, 20)]
    assert {member for batch in batches for member in batch[thread_id]} == {thread_id, *runs}
    assert max(len(batch[thread_id]) for batch in batches) <= 1000
    await house.later.tick(ALL)
    assert await house.client.hgetall(dirty(shard_of(thread_id))) == {}


async def test_the_lists_of_live_threads_name_none_that_has_left(house: House) -> None:
    thread_id = new_thread_id()
    await house.out.store.create_thread(NewThread(thread_id, "w", {}, project="p"))
    for _ in range(2):
        await house.archiver.tick(ALL)
        assert await house.left() == []
        await house.out.store.bring_back(thread_id)
        assert await house.out.store.thread_ids(Tenant("w", "p"), before=None, limit=9) == [thread_id]
        assert await house.out.store.thread_ids(Tenant("w"), before=None, limit=9) == [thread_id]


async def test_a_thread_stays_while_something_goes_on_in_it(house: House) -> None:
    thread_id = await house.thread()
    run_id = await house.submit(thread_id)
    await house.archiver.tick(ALL)
    attempt = await house.claim(run_id)
    await attempt.commit(a_step(1))
    await house.archiver.tick(ALL)
    assert await house.client.zscore(idle(shard_of(thread_id)), thread_id) is None
    assert await house.out.store.thread(thread_id)
    await attempt.end(RunStatus.SUCCEEDED, {}, {})
    assert not await house.archiver.evict(thread_id)  # its end is not archived
    await house.archiver.tick(ALL)
    assert await house.out.store.thread(thread_id) is None


async def test_events_leave_the_stream_once_sql_has_them(house: House) -> None:
    thread_id = await house.thread()
    attempt = await house.claim(await house.submit(thread_id))
    await attempt.commit(a_step(1))
    events = await house.out.store.events(thread_id)
    await house.later.tick(ALL)
    assert await house.out.store.events(thread_id) == events
    await attempt.commit(a_step(2))
    await house.archiver.tick(ALL)
    assert await house.out.store.events(thread_id) == []
    await attempt.commit(a_step(3))
    new = await house.out.store.events(thread_id)
    async with house.database.connect() as c:
        old = await history.thread_events(c, thread_id, after=(0, 0), before=None, count=99)
    assert [event.type for event in [*old, *new]] == ["run.queued", "run.started", *3 * ["step.completed"]]


async def test_a_thread_that_cannot_be_archived_keeps_no_other_waiting(house: House) -> None:
    broken, sound = await house.thread(), await house.thread()
    await house.client.hset(ThreadKeys(broken).metadata, "created_at", "nonsense")
    run_id = await house.finished(sound)
    await house.later.tick(ALL)
    async with house.database.connect() as c:
        assert await history.run(c, run_id)
    assert await house.client.hget(dirty(shard_of(broken)), broken) == "1"


async def test_a_change_between_read_and_clear_is_archived_next_time(house: House) -> None:
    thread_id = await house.thread()
    attempt = await house.claim(await house.submit(thread_id))
    write = house.later._write

    async def late(chunk: object) -> None:
        await write(chunk)  # type: ignore[arg-type]
        if not attempt.journal:
            await attempt.commit(a_step(1))

    house.later._write = late  # type: ignore[method-assign]
    await house.later.tick(ALL)
    assert await house.client.hgetall(dirty(shard_of(thread_id))) != {}
    await house.later.tick(ALL)
    async with house.database.connect() as c:
        assert len(await history.run_steps(c, attempt.run.id)) == 1
    assert await house.client.hgetall(dirty(shard_of(thread_id))) == {}


async def test_nothing_is_unlisted_while_sql_is_away(house: House) -> None:
    thread_id = await house.thread()
    await house.finished(thread_id)
    listed = await house.client.hgetall(dirty(shard_of(thread_id)))
    begin = house.database.begin

    def away() -> object:
        raise AppError(ErrorCode.UNAVAILABLE, "away")

    house.database.begin = away  # type: ignore[method-assign, assignment]
    with pytest.raises(AppError, match="away"):
        await house.later.tick(ALL)
    assert await house.client.hgetall(dirty(shard_of(thread_id))) == listed
    house.database.begin = begin  # type: ignore[method-assign]
    await house.later.tick(ALL)
    assert await house.client.hgetall(dirty(shard_of(thread_id))) == {}


async def test_a_run_that_is_submitted_again_stays_listed_until_sql_has_its_end(house: House) -> None:
    run_id, current = await house.submit(await house.thread()), keys.current_runs("w")
    await house.later.tick(ALL)
    await house.submit(thread_of(run_id), run_id)
    assert await house.client.zrange(current, 0, -1) == [run_id], "it goes on"
    await (await house.claim(run_id)).end(RunStatus.SUCCEEDED, {}, {})
    await house.submit(thread_of(run_id), run_id)
    assert await house.client.zrange(current, 0, -1) == [run_id], "SQL has it as one that goes on"
    await house.later.tick(ALL)
    await house.submit(thread_of(run_id), run_id)
    assert await house.client.zrange(current, 0, -1) == []


async def test_the_time_at_which_all_was_archived_is_told_and_only_then(house: House) -> None:
    def done() -> float:
        return value(generate_latest(house.metrics.registry).decode(), "trunkline_archive_done_timestamp_seconds")

    broken = await house.thread()
    await house.client.hset(ThreadKeys(broken).metadata, "created_at", "nonsense")
    await house.later.tick(ALL)
    await house.later.tick([])
    assert done() == 0
    await house.client.delete(dirty(shard_of(broken)))
    for _ in range(SET_ASIDE_PASSES):
        await house.later.tick([shard_of(broken)])
    assert time.time() - done() < 60


async def test_a_thread_that_cannot_leave_keeps_no_other(house: House) -> None:
    broken, sound = [await house.thread() for _ in range(2)]
    await house.later.tick(ALL)
    await house.client.hset(ThreadKeys(broken).metadata, "last_id", "nonsense")
    for _ in range(2):
        await house.client.zadd(idle(shard_of(broken)), {broken: 0})
        await house.archiver.tick(ALL)
        assert await house.out.store.threads([sound]) == []
        await house.out.store.bring_back(sound)
    assert await house.client.zscore(idle(shard_of(broken)), broken), "it is looked at again much later"
