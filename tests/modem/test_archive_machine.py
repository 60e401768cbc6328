"""Archivers that crash anywhere, late writes, evictions, deletions: in the end SQL has exactly what happened."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from redis.asyncio import Redis

from modem.archive import Archiver
from shared.config import ArchiveSettings, Settings
from shared.db import archive, history
from shared.db.engine import Database
from shared.db.tables.archive import threads
from shared.errors import AppError
from shared.events.outside import Outside
from shared.history.changes import Changes
from shared.history.reads import History
from shared.ids import new_run_id, new_thread_id, shard_of, stream_position
from shared.keys import ThreadKeys, dirty, idle
from shared.redis import connect
from shared.threads.archiving import Archiving, Chunk
from shared.threads.attempt import Attempt, Change, Fenced
from shared.threads.steps import StepRecord
from shared.threads.types import NewEvent, NewRun, NewThread, Run
from shared.types import JSON, RunStatus, StepStatus

AT_ONCE = ArchiveSettings.model_construct(
    every_seconds=1, keep_events_seconds=0.0, evict_after_seconds=-1, retention_days=0
)
LATER = AT_ONCE.model_copy(update={"evict_after_seconds": 3600, "keep_events_seconds": 3600})


class Crash(BaseException):
    """An archiver's death."""


class Machine(RuleBasedStateMachine):
    """Two threads. After each change what is in Redis is noted, as nobody can once it has left."""

    loop: asyncio.Runner
    client: Redis
    database: Database

    @initialize()
    def open(self) -> None:
        self.out = Outside.over(self.client, Settings(), _no_ring, patience_seconds=2, database=self.database)
        self.threads = [new_thread_id(), new_thread_id()]
        self.shards = [shard_of(thread_id) for thread_id in self.threads]
        self.events: dict[str, dict[str, str]] = {thread_id: {} for thread_id in self.threads}
        self.changes = Changes(self.client, self.out.store, self.database, patience_seconds=2)
        self.deleted: set[str] = set()
        self.records: dict[str, dict[str, str]] = {}
        self.journals: dict[str, dict[str, str]] = {}
        self.messages: dict[str, list[JSON]] = {thread_id: [] for thread_id in self.threads}
        self.attempts: list[Attempt] = []
        self.chunks: list[Chunk] = []
        self.crash_at = 0
        self.numbers = itertools.count(1)
        for thread_id in self.threads:
            self.do(self.out.store.create_thread(NewThread(thread_id, "w")))

    def teardown(self) -> None:
        if hasattr(self, "out"):
            try:
                while self.attempts:  # what was emitted since an attempt's last commit is copied with the next one
                    self.commit(message=False)
                    self.attempts.pop()
                self.do(self.judge())
            finally:
                self.do(self.clean())

    async def clean(self) -> None:
        await self.client.flushall()
        async with self.database.begin() as c:
            await c.execute(threads.delete())

    def do(self, call: Any) -> Any:
        return self.loop.run(call)

    def archiver(self, how: ArchiveSettings) -> Archiver:
        """One that dies before the n-th thing that it does to Redis or SQL, if `crash_at` says so."""
        archiving = Archiving(self.client, patience_seconds=2)
        made = Archiver(how, self.database, self.out.store.payloads, archiving, self.out.fleet)
        calls = itertools.count(1)
        write = made._write

        async def note(chunk: Chunk) -> None:
            self.chunks.append(chunk)
            await write(chunk)

        def mortal(call: Any) -> Any:
            async def called(*args: Any, **named: Any) -> Any:
                if next(calls) == self.crash_at:
                    raise Crash
                return await call(*args, **named)

            return called

        made._write = mortal(note)  # type: ignore[method-assign]
        made._settle = mortal(made._settle)  # type: ignore[method-assign]
        for name in ("archived", "evict", "no_longer_current"):
            setattr(archiving, name, mortal(getattr(archiving, name)))
        return made

    @rule(crash_at=st.integers(0, 12), leave=st.booleans())
    def archive(self, crash_at: int, leave: bool) -> None:
        self.crash_at = crash_at
        self.do(_mortal(self.archiver(AT_ONCE if leave else LATER).tick(self.shards)))

    @rule(leave=st.booleans())
    def two_archivers(self, leave: bool) -> None:
        self.crash_at = 0

        async def both() -> None:
            await asyncio.gather(*(self.archiver(AT_ONCE if leave else LATER).tick(self.shards) for _ in range(2)))

        self.do(both())

    @rule(number=st.integers(0, 9))
    def a_write_comes_late(self, number: int) -> None:
        if not self.chunks:
            return
        chunk = self.chunks[-1 - number % len(self.chunks)]

        async def write() -> None:
            async with self.database.begin() as c:
                await archive.write(c, chunk)

        self.do(write())

    @rule(thread=st.integers(0, 1))
    def submit(self, thread: int) -> None:
        self.change(thread, self.out.store.submit(self._new_run(thread), queued={}))

    def _new_run(self, thread: int) -> NewRun:
        return NewRun(new_run_id(self.threads[thread]), "w", {"task": "x"})

    @rule(thread=st.integers(0, 1), number=st.integers(0, 3))
    def submit_again(self, thread: int, number: int) -> None:
        mine = [run_id for run_id in self.records if run_id.startswith(self.threads[thread])]
        if number < len(mine):
            before = len(self.events[self.threads[thread]])
            self.change(thread, self.out.store.submit(NewRun(mine[number], "w", {"task": "x"}), queued={}))
            assert len(self.events[self.threads[thread]]) == before

    @rule(thread=st.integers(0, 1), number=st.integers(0, 3))
    def patch_run(self, thread: int, number: int) -> None:
        async def patch(run: Run) -> None:
            await self.changes.patch_run(run, {"name": str(next(self.numbers))})

        self.of_run(thread, number, patch)

    @rule(thread=st.integers(0, 1), number=st.integers(0, 3))
    def delete_run(self, thread: int, number: int) -> None:
        async def delete(run: Run) -> None:
            if not run.status.terminal:
                with pytest.raises(AppError, match="has not ended"):
                    await self.changes.delete_run(run)
                return
            await self.changes.delete_run(run)
            self.deleted.add(run.id)
            del self.records[run.id], self.journals[run.id]
            events = self.events[run.thread_id]
            self.events[run.thread_id] = {i: e for i, e in events.items() if orjson.loads(e)["run_id"] != run.id}

        self.of_run(thread, number, delete)

    def of_run(self, thread: int, number: int, what: Callable[[Run], Awaitable[None]]) -> None:
        """What is done to one of a thread's runs, wherever it is."""
        mine = [run_id for run_id in self.records if run_id.startswith(self.threads[thread])]
        if number < len(mine):
            run = self.do(History(self.out.store, self.database).run(mine[number]))
            self.change(thread, what(run))

    @rule(thread=st.integers(0, 1))
    def run_to_the_end(self, thread: int) -> None:
        """The thread's next run, or a new one: chance alone seldom gets that far."""
        self.claim(thread)
        mine = [attempt for attempt in self.attempts if attempt.run.thread_id == self.threads[thread]]
        if not mine:
            self.submit(thread)
            self.claim(thread)
            mine = self.attempts[-1:]
        self.attempts = [attempt for attempt in self.attempts if attempt is not mine[-1]] + mine[-1:]
        self.commit(message=True)
        self.attempts.pop()
        self.change(thread, _unfenced(mine[-1].end(RunStatus.SUCCEEDED, {}, {"output": "x"})))

    @rule(thread=st.integers(0, 1))
    def claim(self, thread: int) -> None:
        async def claim() -> None:
            found = await self.out.store.thread(self.threads[thread])
            if found and found.head and (a := await self.out.store.claim(found.head, "w1", str(next(self.numbers)))):
                self.attempts.append(a)

        self.change(thread, claim())

    @precondition(lambda self: self.attempts)
    @rule(leave=st.booleans())
    def end_while_it_is_archived(self, leave: bool) -> None:
        self.crash_at = 0
        archiver, attempt = self.archiver(AT_ONCE if leave else LATER), self.attempts.pop()
        write = archiver._write

        async def late(chunk: Chunk) -> None:
            if not ended:
                ended.append(attempt.run.id)
                await self.noted(attempt.run.thread_id, _unfenced(attempt.end(RunStatus.SUCCEEDED, {}, {})))
            await write(chunk)

        ended: list[str] = []
        archiver._write = late  # type: ignore[method-assign]
        self.do(archiver.tick(self.shards))
        if not ended:  # nothing was dirty
            self.change(self.threads.index(attempt.run.thread_id), _unfenced(attempt.end(RunStatus.FAILED, {}, {})))

    @precondition(lambda self: self.attempts)
    @rule(message=st.booleans())
    def commit(self, message: bool) -> None:
        attempt, number = self.attempts[-1], next(self.numbers)
        step = StepRecord(f"k{number}", number, "k", "t", StepStatus.SUCCEEDED, "h", result=number)
        messages = [{"role": "user", "content": str(number)}] if message else []
        change = Change([step], messages, [NewEvent("step.completed", {"key": step.key}, number)])
        self.change(self.threads.index(attempt.run.thread_id), _unfenced(attempt.commit(change)))

    @precondition(lambda self: self.attempts)
    @rule()
    def emit(self) -> None:
        attempt = self.attempts[-1]
        emitted = attempt.emit([NewEvent("agent.delta", {"text": str(next(self.numbers))}, 1)])
        self.change(self.threads.index(attempt.run.thread_id), _unfenced(emitted))

    @precondition(lambda self: self.attempts)
    @rule(status=st.sampled_from([RunStatus.SUCCEEDED, RunStatus.FAILED]), large=st.booleans())
    def end(self, status: RunStatus, large: bool) -> None:
        attempt = self.attempts.pop()
        output = "x" * (70_000 if large else 1)
        ended = attempt.end(status, {"output": "x"}, {"output": output})
        self.change(self.threads.index(attempt.run.thread_id), _unfenced(ended))

    def change(self, thread: int, call: Any) -> None:
        self.do(self.noted(self.threads[thread], call))

    async def noted(self, thread_id: str, call: Any) -> None:
        store = self.out.store
        await call
        if (found := await store.thread(thread_id)) is None:
            return
        newest = max(map(stream_position, self.events[thread_id]), default=(0, 0))
        for entry in await store.events(thread_id, count=10_000):
            known = self.events[thread_id].setdefault(entry.id, entry.event.decode())
            assert known == entry.event.decode()
        assert stream_position(found.last_id) >= newest
        for run_id in await store.run_ids(thread_id):
            k = ThreadKeys(thread_id)
            self.records[run_id] = await _hash(self.client, k.run(run_id))
            self.journals[run_id] = await _hash(self.client, k.journal(run_id))
        self.messages[thread_id] = await store.messages(thread_id)

    async def judge(self) -> None:
        """Once all is archived."""
        self.crash_at = 0
        await self.archiver(AT_ONCE).tick(self.shards)
        await self.archiver(AT_ONCE).tick(self.shards)
        assert [await _hash(self.client, dirty(shard)) for shard in self.shards] == [{}, {}]
        async with self.database.connect() as c:
            for thread_id in self.threads:
                found = await history.thread_events(c, thread_id, after=(0, 0), before=None, count=10_000)
                told = sorted(self.events[thread_id].items(), key=lambda item: stream_position(item[0]))
                assert [(event.id, event.event.decode()) for event in found] == told
                await self.judge_thread(c, thread_id)
            assert await history.runs_of(c, list(self.deleted)) == []
            for run_id, record in self.records.items():
                run = await history.run(c, run_id)
                assert run
                assert run.record == record
                assert {key: entry for key, _, entry in await history.entries(c, run_id)} == self.journals[run_id]

    async def judge_thread(self, c: Any, thread_id: str) -> None:
        live = await self.out.store.thread(thread_id)
        busy = any(
            record["status"] not in ("succeeded", "failed")
            for run_id, record in self.records.items()
            if run_id.startswith(thread_id)
        )
        assert (live is not None) is busy
        if live is None:
            kept = [orjson.loads(message) for message in await history.conversation(c, thread_id)]
            assert kept == self.messages[thread_id]
            assert await self.client.zscore(idle(shard_of(thread_id)), thread_id) is None


async def _no_ring(_: str | None) -> None: ...


async def _unfenced(call: Any) -> None:
    try:
        await call
    except Fenced:
        return


async def _mortal(call: Any) -> None:
    try:
        await call
    except Crash:
        return


async def _hash(client: Redis, name: str) -> dict[str, str]:
    found: Any = await client.hgetall(name)
    return dict(found)


def test_in_the_end_sql_has_what_happened_no_more_and_no_less(redis_url: str, database_url: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as Machine.loop:
        Machine.client = connect(redis_url, timeout_seconds=5, max_connections=4)
        Machine.database = Database(database_url, pool_size=2)
        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=25,
                    stateful_step_count=30,
                    suppress_health_check=list(HealthCheck),
                    database=None,
                ),
            )
        finally:
            Machine.loop.run(Machine.client.aclose())
            Machine.loop.run(Machine.database.close())
