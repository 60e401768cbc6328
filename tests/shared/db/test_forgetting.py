"""What is deleted from the archive while somebody writes to it."""

import asyncio

from shared.db import archive, history
from shared.db.engine import Database
from shared.ids import new_run_id, new_thread_id
from shared.threads.archiving import Chunk, EventCopy, RecordCopy


def chunks(thread_id: str, run_id: str) -> tuple[Chunk, Chunk]:
    """A thread with a run, and an event of it."""
    common = {"workspace": "w", "created_at": "1", "seq": "1"}
    thread = RecordCopy(thread_id, {**common, "status": "active", "last_id": "1-0"})
    run = RecordCopy(run_id, {**common, "runnable_type": "agent", "status": "succeeded"})
    event = EventCopy(thread_id, "1-0", run_id, "run.queued", "{}")
    return Chunk([thread], [run]), Chunk(events=[event])


async def test_events_of_a_run_that_is_deleted_while_they_are_written_do_not_stay(database: Database) -> None:
    thread_id = new_thread_id()
    records, events = chunks(thread_id, run_id := new_run_id(thread_id))
    async with database.begin() as c:
        await archive.write(c, records)

    async def forget() -> None:
        async with database.begin() as c:
            await archive.forget(c, [run_id])

    async with database.begin() as c:
        await archive.write(c, events)
        forgetting = asyncio.create_task(forget())
        await asyncio.wait([forgetting], timeout=0.5)  # it has to wait for the writer
    await forgetting
    async with database.connect() as c:
        assert await history.thread_events(c, thread_id, after=(0, 0), before=None, count=9) == []


async def test_events_of_a_deleted_run_that_come_late_are_not_written(database: Database) -> None:
    thread_id = new_thread_id()
    records, events = chunks(thread_id, run_id := new_run_id(thread_id))
    async with database.begin() as c:
        await archive.write(c, records)
        await archive.forget(c, [run_id])
        await archive.write(c, records)
        await archive.write(c, events)
        assert await history.thread_events(c, thread_id, after=(0, 0), before=None, count=9) == []
        assert await history.run(c, run_id) is None
