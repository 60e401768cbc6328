"""What is read of the archive: threads, runs, steps and events as Redis had them.

Ids are unique among all workspaces, and the record that an id leads to says whose it is: the caller compares, and
answers that there is none where it is another's. Lists take the tenant.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Row, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.rows import Place, of_tenant
from shared.db.tables.archive import blobs, events, messages, runs, steps, threads
from shared.tenant import Tenant
from shared.threads.archiving import RecordCopy
from shared.threads.steps import StepRecord
from shared.threads.types import StreamEntry

Position = tuple[int, int]
MOST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ArchivedThread(RecordCopy):
    """`purged`: the last event that retention has removed."""

    snapshots: Sequence[str]
    last: Position
    purged: Position


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs a list has; None: whatever it is."""

    thread_id: str | None = None
    project: str | None = None
    runnable_type: str | None = None
    runnable_id: str | None = None
    task_id: str | None = None
    status: str | None = None
    user_uuid: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Created at or after the one, before the other."""
    labels: dict[str, str] = field(default_factory=dict)


async def thread(c: AsyncConnection, thread_id: str) -> ArchivedThread | None:
    query = select(threads).where(threads.c.id == thread_id, threads.c.deleted_at.is_(None), threads.c.seq >= 0)
    row = (await c.execute(query)).one_or_none()
    return _thread(row) if row else None


async def was_deleted(c: AsyncConnection, member: str) -> bool:
    """A thread or a run of which only its tombstone is there."""
    table = runs if "." in member else threads
    query = select(table.c.id).where(table.c.id == member, table.c.deleted_at.is_not(None))
    return (await c.execute(query)).first() is not None


async def threads_of(c: AsyncConnection, thread_ids: Sequence[str]) -> list[ArchivedThread]:
    query = select(threads).where(threads.c.id.in_(thread_ids), threads.c.deleted_at.is_(None), threads.c.seq >= 0)
    return [_thread(row) for row in await c.execute(query)]


async def thread_ids(
    c: AsyncConnection, tenant: Tenant, *, before: str | None, limit: int, **equal: str | None
) -> list[str]:
    """Newest first. `equal`: columns and what they are to be, where that is not None."""
    query = select(threads.c.id).where(of_tenant(threads, tenant), threads.c.deleted_at.is_(None))
    for name, value in equal.items():
        query = query if value is None else query.where(threads.c[name] == value)
    query = query if before is None else query.where(threads.c.id < before)
    return list((await c.execute(query.order_by(threads.c.id.desc()).limit(limit))).scalars())


async def run(c: AsyncConnection, run_id: str) -> RecordCopy | None:
    found = await runs_of(c, [run_id])
    return found[0] if found else None


async def runs_of(c: AsyncConnection, run_ids: Sequence[str]) -> list[RecordCopy]:
    return await archived_runs(c, runs.c.id.in_(run_ids))


async def runs_of_thread(c: AsyncConnection, thread_id: str) -> list[RecordCopy]:
    return await archived_runs(c, runs.c.thread_id == thread_id)


async def archived_runs(
    c: AsyncConnection, *conditions: ColumnElement[bool], order: Sequence[Any] = (), limit: int | None = None
) -> list[RecordCopy]:
    query = select(runs.c.id, runs.c.record).where(runs.c.deleted_at.is_(None), *conditions)
    found = await c.execute(query.order_by(*order).limit(limit))
    return [RecordCopy(row.id, orjson.loads(row.record)) for row in found]


async def run_page(
    c: AsyncConnection,
    tenant: Tenant,
    wanted: RunFilter,
    *,
    after: Place | None,
    limit: int,
    oldest_first: bool = False,
) -> list[RecordCopy]:
    """In the order of their making, newest first unless said otherwise; those behind `after`."""
    conditions = [of_tenant(runs, tenant), *_conditions(wanted)]
    place = tuple_(runs.c.created_at, runs.c.id)
    if after is not None:
        mark = tuple_(after.at, after.id, types=[runs.c.created_at.type, runs.c.id.type])
        conditions.append(place > mark if oldest_first else place < mark)
    order = [runs.c.created_at, runs.c.id] if oldest_first else [runs.c.created_at.desc(), runs.c.id.desc()]
    return await archived_runs(c, *conditions, order=order, limit=limit)


def _conditions(wanted: RunFilter) -> list[ColumnElement[bool]]:
    equal = ("thread_id", "project", "runnable_type", "runnable_id", "task_id", "status", "user_uuid")
    found = [runs.c[name] == value for name in equal if (value := getattr(wanted, name)) is not None]
    found += [] if wanted.since is None else [runs.c.created_at >= wanted.since]
    found += [] if wanted.until is None else [runs.c.created_at < wanted.until]
    return [*found, *(runs.c.labels[name].as_string() == value for name, value in wanted.labels.items())]


async def run_steps(c: AsyncConnection, run_id: str, start: int = 0, count: int | None = None) -> list[StepRecord]:
    query = select(steps.c.key, steps.c.entry).where(steps.c.run_id == run_id)
    query = query.order_by(steps.c.number, steps.c.key).offset(start)
    query = query if count is None else query.limit(count)
    return [StepRecord.parse(row.key, row.entry) for row in await c.execute(query)]


async def entries(c: AsyncConnection, run_id: str) -> list[tuple[str, int, str]]:
    """The journal: step key, number, entry."""
    query = select(steps.c.key, steps.c.number, steps.c.entry).where(steps.c.run_id == run_id)
    return [(row.key, row.number, row.entry) for row in await c.execute(query)]


async def entries_with_refs(c: AsyncConnection, thread_id: str) -> list[tuple[str, StepRecord]]:
    """Of all runs of a thread the steps that may name large values, each with its run's id."""
    query = select(steps.c.run_id, steps.c.key, steps.c.entry).join(runs, runs.c.id == steps.c.run_id)
    query = query.where(runs.c.thread_id == thread_id, steps.c.entry.contains('"sha256"', autoescape=True))
    return [(row.run_id, StepRecord.parse(row.key, row.entry)) for row in await c.execute(query)]


async def step(c: AsyncConnection, run_id: str, number: int) -> StepRecord | None:
    query = select(steps.c.key, steps.c.entry).where(steps.c.run_id == run_id, steps.c.number == number)
    row = (await c.execute(query.limit(1))).one_or_none()
    return StepRecord.parse(row.key, row.entry) if row else None


async def conversation(c: AsyncConnection, thread_id: str, start: int = 0, count: int | None = None) -> list[str]:
    """Of an evicted thread, each message as JSON."""
    query = select(messages.c.message).where(messages.c.thread_id == thread_id, messages.c.place >= start)
    query = query.order_by(messages.c.place)
    return list((await c.execute(query if count is None else query.limit(count))).scalars())


async def thread_events(
    c: AsyncConnection, thread_id: str, *, after: Position, before: Position | None, count: int
) -> list[StreamEntry]:
    """Those after the one and below the other."""
    return await _events(c, events.c.thread_id == thread_id, after, before, count)


async def run_events(
    c: AsyncConnection, run_id: str, *, after: Position, before: Position | None, count: int
) -> list[StreamEntry]:
    return await _events(c, events.c.run_id == run_id, after, before, count)


async def _events(
    c: AsyncConnection, mine: ColumnElement[bool], after: Position, before: Position | None, count: int
) -> list[StreamEntry]:
    place = tuple_(events.c.ms, events.c.n)
    query = select(events).where(mine, place > tuple_(*_in_range(after)))
    query = query if before is None else query.where(place < tuple_(*_in_range(before)))
    found = await c.execute(query.order_by(events.c.ms, events.c.n).limit(count))
    return [StreamEntry(f"{row.ms}-{row.n}", row.type, row.run_id, row.event.encode()) for row in found]


def _in_range(position: Position) -> Position:
    """What a column can be compared with; no event's number is that high."""
    return min(position[0], MOST), min(position[1], MOST)


async def blob(c: AsyncConnection, thread_id: str, name: str) -> bytes | None:
    query = select(blobs.c.data).where(blobs.c.thread_id == thread_id, blobs.c.name == name)
    found: bytes | None = (await c.execute(query)).scalar_one_or_none()
    return found


async def usage(c: AsyncConnection, tenant: Tenant, wanted: RunFilter, by: Sequence[str]) -> list[dict[str, Any]]:
    """What runs have cost, summed up by columns (`runnable_id`, `model`, ...), `project_id` and `day` (UTC)."""
    text_of_day = func.strftime("%Y-%m-%d", runs.c.created_at)
    if c.dialect.name == "postgresql":
        text_of_day = func.to_char(func.timezone("UTC", runs.c.created_at), "YYYY-MM-DD")
    other = {"day": text_of_day, "project_id": runs.c.project}
    groups = [other[name].label(name) if name in other else runs.c[name] for name in by]
    sums = [func.coalesce(func.sum(runs.c[name]), 0).label(name) for name in ("input_tokens", "output_tokens", "cost")]
    query = select(*groups, func.count().label("runs"), *sums)
    query = query.where(of_tenant(runs, tenant), runs.c.deleted_at.is_(None), *_conditions(wanted))
    found = await c.execute(query.group_by(*groups).order_by(*groups))
    return [
        {**row._mapping, "input_tokens": int(row.input_tokens), "output_tokens": int(row.output_tokens)}
        for row in found
    ]


def _thread(row: Row[Any]) -> ArchivedThread:
    return ArchivedThread(
        row.id,
        orjson.loads(row.record),
        snapshots=orjson.loads(row.snapshots),
        last=(row.last_ms, row.last_n),
        purged=(row.purged_ms, row.purged_n),
    )
