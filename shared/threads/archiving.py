"""What the archiver reads of threads and says to them: which changed, their copies, and that SQL has those now.

Nothing here may be lost by a crash: a change stays on the list of what is dirty until SQL has a copy as new as it.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from redis.asyncio import Redis

from shared import keys
from shared.ids import thread_of
from shared.keys import ThreadKeys, thread_keys_of
from shared.payloads.blobs import Ref
from shared.scripts import Scripts
from shared.tenant import Tenant
from shared.threads.steps import StepRecord
from shared.threads.types import DELETED
from shared.types import RunStatus

GONE_MS = 60_000
"""For so long after its mark has gone nobody brings a deleted thread or run back: longer than any reader of SQL takes
(shared.history.revival.FRESH_MS), and than a thread is young (YOUNG_MS)."""
PAGE = 200
"""Events of a thread, or steps of a run, in one chunk."""
MOST_MARKS = 1000
"""Threads and runs whose changes are read together, and asked for in one query."""
ENDED_STEP = frozenset({"succeeded", "failed", "skipped", "canceled"})

BLOBS_OWN = ("blob", "gone")
"""What stands on the agenda for blobs, which can be cleaned up without their thread."""
REFS = ("input_ref", "output_ref")

Marks = Mapping[str, str]
"""Run or thread id -> its `seq` when it was marked, or DELETED."""


@dataclass(frozen=True, slots=True)
class RecordCopy:
    """A thread's or a run's hash."""

    id: str
    record: Mapping[str, str]

    @property
    def seq(self) -> int:
        return int(self.record["seq"])

    @property
    def ended(self) -> bool:
        """Of a run."""
        return RunStatus(self.record["status"]).terminal


@dataclass(frozen=True, slots=True)
class StepCopy:
    """`entry`: as the journal has it. `seq`: the run's, no newer than the entry."""

    run_id: str
    key: str
    number: int
    entry: str
    seq: int

    @property
    def status(self) -> str:
        return self.entry.partition(" ")[0]


@dataclass(frozen=True, slots=True)
class EventCopy:
    thread_id: str
    id: str
    run_id: str
    type: str
    event: str


@dataclass(slots=True)
class Chunk:
    """A part of what is copied at once. `steps_done`: of each run, up to which step all have ended and were copied."""

    threads: list[RecordCopy] = field(default_factory=list)
    runs: list[RecordCopy] = field(default_factory=list)
    steps: list[StepCopy] = field(default_factory=list)
    events: list[EventCopy] = field(default_factory=list)
    steps_done: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resting:
    """A thread in which nothing goes on, as it was read: what SQL must have before it may leave Redis."""

    thread_id: str
    record: Mapping[str, str]
    runs: Sequence[str]
    messages: Sequence[str]
    snapshots: Sequence[str]


class Archiving:
    """`patience_seconds`: as of `Scripts`. Raises RedisError when Redis is away."""

    def __init__(self, client: Redis, *, patience_seconds: float | None, replicas: int = 0) -> None:
        self._client = client
        self._scripts = Scripts(
            client, __package__, "archived", "evict", patience_seconds=patience_seconds, replicas=replicas
        )

    async def dirty(self, shards: Iterable[int], threads: int) -> AsyncIterator[dict[str, dict[str, str]]]:
        """All that SQL does not have, by thread, so many threads at a time; one with very many changes in parts."""
        found: dict[str, dict[str, str]] = {}
        size = 0
        names = [keys.dirty(shard) for shard in shards]
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.hlen(name)
        counts = await pipeline.execute() if names else []
        for name in (name for name, count in zip(names, counts, strict=True) if count):
            async for member, mark in self._client.hscan_iter(name, count=PAGE):
                if size == MOST_MARKS or (len(found) == threads and thread_of(member) not in found):
                    yield found
                    found, size = {}, 0
                found.setdefault(thread_of(member), {})[member] = mark
                size += 1
        if found:
            yield found

    async def copies(self, marks: Mapping[str, Marks], steps_done: Mapping[str, int]) -> AsyncIterator[Chunk]:
        """The marked threads and runs as they are now, in chunks of bounded size; records come first.

        `steps_done`: of a run, what SQL has already.
        """
        chunk = Chunk()
        for thread_id, marked in marks.items():
            if thread := await self._record(thread_id, ThreadKeys(thread_id).metadata):
                chunk.threads.append(thread)
                chunk.runs += await self._runs([member for member in marked if member != thread_id])
        yield chunk
        for run in chunk.runs:
            async for steps in self._steps(run, steps_done.get(run.id, 0)):
                yield steps
        for thread in chunk.threads:
            async for events in self._events(thread):
                yield events

    async def archived(self, thread_id: str, marks: Marks, last_id: str, *, keep_ms: int) -> None:
        """SQL has what was read of a thread, events up to `last_id`. Those older than `keep_ms` leave the stream."""
        k = ThreadKeys(thread_id)
        read = [item for pair in marks.items() for item in pair]
        names = [k.metadata, k.stream, k.dirty, k.idle, *map(k.gone, marked_for_deletion(marks))]
        await self._scripts.call("archived", names, [thread_id, last_id, keep_ms, GONE_MS, len(marks), *read])

    async def no_longer_current(self, runs: Iterable[RecordCopy]) -> None:
        """Ended runs that SQL has: lists find them there."""
        pipeline = self._client.pipeline(transaction=False)
        for run in runs:
            pipeline.zrem(keys.current_runs(run.record["workspace"]), run.id)
        await pipeline.execute()

    async def idle(self, shards: Iterable[int], *, seconds: float, limit: int) -> list[str]:
        """Threads in which nothing has gone on for so long, but for those of which something is on the agenda."""
        now, _ = await self._client.time()
        wanted = list(shards)
        pipeline = self._client.pipeline(transaction=False)
        for shard in wanted:
            pipeline.zrangebyscore(keys.idle(shard), "-inf", (now - seconds) * 1000, start=0, num=limit)
        rows = await pipeline.execute() if wanted else []
        found: list[str] = []
        for shard, members in zip(wanted, rows, strict=True):
            if members and len(found) < limit:
                found += await self._not_due(shard, members[: limit - len(found)])
        return found

    async def _not_due(self, shard: int, thread_ids: Sequence[str]) -> list[str]:
        """Those that something on the agenda still needs are put off."""
        due = set()
        async for timer, _ in self._client.zscan_iter(keys.timers(shard), count=1000):
            kind, member, _ = f"{timer}|".split("|", 2)
            if kind not in BLOBS_OWN:
                due.add(thread_of(member))
        if busy := due.intersection(thread_ids):
            await self.put_off(busy)
        return [thread_id for thread_id in thread_ids if thread_id not in busy]

    async def put_off(self, thread_ids: Iterable[str]) -> None:
        """They count as idle from now on."""
        now, _ = await self._client.time()
        for thread_id in thread_ids:
            await self._client.zadd(ThreadKeys(thread_id).idle, {thread_id: now * 1000}, xx=True)

    async def resting(self, thread_id: str) -> Resting:
        k = ThreadKeys(thread_id)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hgetall(k.metadata)
        pipeline.zrange(k.runs, 0, -1)
        pipeline.lrange(k.messages, 0, -1)
        pipeline.lrange(k.snapshots, 0, -1)
        return Resting(thread_id, *await pipeline.execute())

    async def refs(self, run_ids: Iterable[str]) -> list[Ref]:
        """The large values that the runs name."""
        found: list[Ref] = []
        for run_id in run_ids:
            k = thread_keys_of(run_id)
            values: Any = await self._client.hmget(k.run(run_id), REFS)
            found += refs_of_record({name: text for name, text in zip(REFS, values, strict=True) if text})
            async for key, entry in self._client.hscan_iter(k.journal(run_id), count=PAGE):
                found += StepRecord.parse(key, entry).refs
        return found

    async def evict(self, resting: Resting, blobs: Iterable[Ref]) -> bool:
        """Whether the thread has left Redis, with those blobs: only if it still is as it was read."""
        k = ThreadKeys(resting.thread_id)
        names = [k.metadata, k.queue, k.messages, k.runs, k.snapshots, k.dirty, k.idle, k.stream]
        for run_id in resting.runs:
            names += k.of_run(run_id)
        names += [k.blob(ref.name) for ref in blobs]
        record = resting.record
        head = [resting.thread_id, record.get("last_id", ""), record.get("seq", ""), len(resting.messages)]
        lists = [len(resting.runs), *resting.runs, len(resting.snapshots), *resting.snapshots]
        answer = await self._scripts.call("evict", names, [*head, *lists])
        if answer[0] != "evicted":
            return False
        for tenant in Tenant(record["workspace"], record.get("project")).seen_by:
            await self._client.zrem(keys.threads(tenant), resting.thread_id)
        return True

    async def _record(self, member: str, name: str) -> RecordCopy | None:
        record: Any = await self._client.hgetall(name)
        return RecordCopy(member, record) if record else None

    async def _runs(self, run_ids: Sequence[str]) -> list[RecordCopy]:
        pipeline = self._client.pipeline(transaction=False)
        for run_id in run_ids:
            pipeline.hgetall(thread_keys_of(run_id).run(run_id))
        found = await pipeline.execute() if run_ids else []
        return [RecordCopy(i, record) for i, record in zip(run_ids, found, strict=True) if record]

    async def _steps(self, run: RecordCopy, done: int) -> AsyncIterator[Chunk]:
        k, start, unbroken = thread_keys_of(run.id), 0, True
        while True:
            rows: Any = await self._client.zrangebyscore(
                k.steps(run.id), f"({done}", "+inf", start=start, num=PAGE, withscores=True
            )
            if not rows:
                return
            entries: Any = await self._client.hmget(k.journal(run.id), [key for key, _ in rows])
            pairs = zip(rows, entries, strict=True)
            steps = [StepCopy(run.id, key, int(number), entry, run.seq) for (key, number), entry in pairs if entry]
            chunk, up_to = Chunk(steps=steps), 0
            for step in steps:
                unbroken = unbroken and step.status in ENDED_STEP
                up_to = step.number if unbroken else up_to
            if up_to:
                chunk.steps_done[run.id] = up_to
            yield chunk
            start += len(rows)

    async def _events(self, thread: RecordCopy) -> AsyncIterator[Chunk]:
        after, last_id = thread.record.get("archived_id", "0-0"), thread.record["last_id"]
        while after != last_id:
            found: Any = await self._client.xrange(ThreadKeys(thread.id).stream, f"({after}", last_id, PAGE)
            if not found:
                return
            yield Chunk(events=[EventCopy(thread.id, i, e["r"], e["t"], e["e"]) for i, e in found])
            after = found[-1][0]


def marked_for_deletion(marks: Marks) -> list[str]:
    return [member for member, mark in marks.items() if mark == DELETED]


def refs_of_record(record: Mapping[str, str]) -> list[Ref]:
    """The large values that a run's record names."""
    return [Ref.parse(orjson.loads(record[name])) for name in REFS if record.get(name)]


def refs_of_snapshots(lines: Iterable[str]) -> list[Ref]:
    return [Ref.parse(part) for line in lines for part in orjson.loads(line)["parts"]]
