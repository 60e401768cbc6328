"""What the archiver writes. All of it may be written twice, by two at once, in any order: newer states stay."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Table, and_, delete, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db import names
from shared.db.rows import insert as insert_into
from shared.db.tables.archive import blobs, events, messages, runs, steps, threads
from shared.ids import stream_position, thread_of
from shared.threads.archiving import Chunk, EventCopy, RecordCopy, Resting, StepCopy
from shared.threads.types import time_of

LAST_SEQ = 2**62
"""That of what is deleted: nothing is newer."""
NAME_CHARS = 200


async def steps_done(c: AsyncConnection, run_ids: Sequence[str]) -> dict[str, int]:
    """Of the runs that are known, up to which step all have ended and are archived."""
    found = await c.execute(select(runs.c.id, runs.c.steps_done).where(runs.c.id.in_(run_ids)))
    return {row.id: row.steps_done for row in found}


async def write(c: AsyncConnection, chunk: Chunk) -> None:
    """Threads come before what is theirs. What was deleted meanwhile stays so."""
    await _upsert(c, threads, sorted(map(_thread_row, chunk.threads), key=_id), _newer_thread)
    there = await _undeleted(c, threads, {thread_of(item.id) for item in [*chunk.threads, *chunk.runs]})
    wanted = [run for run in chunk.runs if thread_of(run.id) in there]
    await _upsert(c, runs, sorted(map(_run_row, wanted), key=_id), _newer)
    known = await _undeleted(c, runs, {step.run_id for step in chunk.steps})
    await _upsert(c, steps, [_step_row(step) for step in chunk.steps if step.run_id in known], _newer)
    kept = await _undeleted(c, threads, {event.thread_id for event in chunk.events})
    gone = await _deleted_runs(c, {event.run_id for event in chunk.events})
    rows = [_event_row(e) for e in chunk.events if e.thread_id in kept and e.run_id not in gone]
    await _upsert(c, events, rows, None)
    for run_id, number in chunk.steps_done.items():
        await c.execute(update(runs).where(runs.c.id == run_id, runs.c.steps_done < number).values(steps_done=number))


async def settle(c: AsyncConnection, resting: Resting) -> bool:
    """Keeps what only an evicted thread needs. False: the archive has another state of the thread than was read."""
    ms, n = stream_position(resting.record["last_id"])
    mine = and_(threads.c.id == resting.thread_id, threads.c.deleted_at.is_(None))
    same = and_(threads.c.seq == int(resting.record["seq"]), threads.c.last_ms == ms, threads.c.last_n == n)
    lines = orjson.dumps(list(resting.snapshots)).decode()
    if (await c.execute(update(threads).where(mine, same).values(snapshots=lines))).rowcount != 1:
        return False
    await c.execute(delete(messages).where(messages.c.thread_id == resting.thread_id))
    rows = [
        {"thread_id": resting.thread_id, "place": place, "message": message}
        for place, message in enumerate(resting.messages)
    ]
    await _upsert(c, messages, rows, None)
    return True


async def keep_blob(c: AsyncConnection, thread_id: str, name: str, data: bytes) -> None:
    """Raises IntegrityError where the thread is not archived."""
    await _upsert(c, blobs, [{"thread_id": thread_id, "name": name, "data": data}], None)


async def kept_blobs(c: AsyncConnection, thread_id: str) -> set[str]:
    found = await c.execute(select(blobs.c.name).where(blobs.c.thread_id == thread_id))
    return {row.name for row in found}


async def drop_blobs(c: AsyncConnection, thread_id: str, names: Sequence[str]) -> None:
    await c.execute(delete(blobs).where(blobs.c.thread_id == thread_id, blobs.c.name.in_(names)))


async def forget(c: AsyncConnection, members: Iterable[str]) -> None:
    """Threads and runs (by their ids) that were deleted: empty rows of them stay, so that they do not come back."""
    for member in sorted(members):
        if "." in member:
            await _forget_run(c, member)
        else:
            await _forget_thread(c, member)


async def _forget_thread(c: AsyncConnection, thread_id: str) -> None:
    void = {"record": "{}", "snapshots": "[]", "seq": LAST_SEQ, "deleted_at": datetime.now(UTC)}
    await _upsert(c, threads, [_unknown_thread(thread_id)], None)
    await c.execute(update(threads).where(threads.c.id == thread_id).values(**void))
    await c.execute(delete(steps).where(steps.c.run_id.in_(select(runs.c.id).where(runs.c.thread_id == thread_id))))
    for table in (events, runs, messages, blobs):
        await c.execute(delete(table).where(table.c.thread_id == thread_id))
    await names.forget(c, thread_id)


async def _forget_run(c: AsyncConnection, run_id: str) -> None:
    void: dict[str, Any] = {
        "record": "{}",
        "labels": {},
        "seq": LAST_SEQ,
        "deleted_at": datetime.now(UTC),
    }
    thread_id = thread_of(run_id)
    await _upsert(c, threads, [_unknown_thread(thread_id)], None)
    # Who writes events of the thread has it locked: they are there to be deleted, or find the run deleted.
    await c.execute(select(threads.c.id).where(threads.c.id == thread_id).with_for_update())
    row = {"id": run_id, "thread_id": thread_id, "workspace": "", "runnable_type": "", "status": ""}
    await _upsert(c, runs, [{**row, **void, "created_at": void["deleted_at"]}], None)
    await c.execute(update(runs).where(runs.c.id == run_id).values(**void))
    await c.execute(delete(steps).where(steps.c.run_id == run_id))
    await c.execute(delete(events).where(events.c.run_id == run_id))


def _unknown_thread(thread_id: str) -> dict[str, Any]:
    """Older than anything that is known of one."""
    row = {"id": thread_id, "workspace": "", "status": "", "created_at": datetime.now(UTC), "record": "{}"}
    return {**row, "seq": -1, "last_ms": 0, "last_n": 0}


async def _undeleted(c: AsyncConnection, table: Table, ids: set[str]) -> set[str]:
    """Those that are there, and are not deleted; locked on Postgres until the transaction ends."""
    if not ids:
        return set()
    query = select(table.c.id).where(table.c.id.in_(sorted(ids)), table.c.deleted_at.is_(None)).order_by(table.c.id)
    return {row.id for row in await c.execute(query.with_for_update(read=True))}


async def _deleted_runs(c: AsyncConnection, ids: set[str]) -> set[str]:
    found = await c.execute(select(runs.c.id).where(runs.c.id.in_(sorted(ids)), runs.c.deleted_at.is_not(None)))
    return {row.id for row in found}


async def _upsert(c: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]], newer: Any) -> None:
    """`newer(excluded)`: when a row is to replace the one that is there; None: never."""
    if not rows:
        return
    insert = insert_into(c, table)
    key = [column.name for column in table.primary_key.columns]
    if newer is None:
        statement = insert.on_conflict_do_nothing(index_elements=key)
    else:
        values = {name: insert.excluded[name] for name in rows[0] if name not in key}
        statement = insert.on_conflict_do_update(index_elements=key, set_=values, where=newer(table, insert.excluded))
    await c.execute(statement, rows)


def _newer(table: Table, excluded: Any) -> ColumnElement[bool]:
    found: ColumnElement[bool] = excluded.seq > table.c.seq
    return found


def _newer_thread(table: Table, excluded: Any) -> ColumnElement[bool]:
    """Events of its runs change a thread without its own `seq`."""
    later = tuple_(excluded.last_ms, excluded.last_n) > tuple_(table.c.last_ms, table.c.last_n)
    return and_(table.c.deleted_at.is_(None), excluded.seq >= table.c.seq, or_(excluded.seq > table.c.seq, later))


def _id(row: Mapping[str, Any]) -> str:
    found: str = row["id"]
    return found


def _thread_row(thread: RecordCopy) -> dict[str, Any]:
    record = thread.record
    ms, n = stream_position(record["last_id"])
    return {
        "id": thread.id,
        "workspace": record["workspace"],
        "project": _text(record.get("project")),
        "status": record["status"],
        "created_at": time_of(record["created_at"]),
        "record": _json(record),
        "seq": thread.seq,
        "last_ms": ms,
        "last_n": n,
    }


def _run_row(run: RecordCopy) -> dict[str, Any]:
    record = run.record
    usage = orjson.loads(record["usage"]) if record.get("usage") else {}
    return {
        "id": run.id,
        "thread_id": thread_of(run.id),
        "workspace": record["workspace"],
        **{name: _text(record.get(name)) for name in ("project", "runnable_id", "task_id", "user_uuid", "model")},
        "runnable_type": record["runnable_type"],
        "status": record["status"],
        "input_tokens": int(usage.get("input_tokens") or 0),
        "output_tokens": int(usage.get("output_tokens") or 0),
        "cost": usage.get("cost"),
        "labels": orjson.loads(record["labels"]) if record.get("labels") else {},
        "created_at": time_of(record["created_at"]),
        "ended_at": time_of(record["ended_at"]) if "ended_at" in record else None,
        "record": _json(record),
        "seq": run.seq,
    }


def _step_row(step: StepCopy) -> dict[str, Any]:
    return {
        "run_id": step.run_id,
        "key": step.key.replace("\0", "\ufffd"),
        "number": step.number,
        "entry": step.entry,
        "seq": step.seq,
    }


def _event_row(event: EventCopy) -> dict[str, Any]:
    ms, n = stream_position(event.id)
    return {
        "thread_id": event.thread_id,
        "ms": ms,
        "n": n,
        "run_id": event.run_id,
        "type": event.type,
        "event": event.event,
    }


def _json(record: Mapping[str, str]) -> str:
    return orjson.dumps(dict(record)).decode()


def _text(value: str | None) -> str | None:
    """What Postgres can keep in a column to search by; the record has it whole."""
    return None if value is None else value.replace("\0", "\ufffd")[:NAME_CHARS]
