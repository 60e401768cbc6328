"""What is read of threads and runs, live or evicted: from Redis what it has, the rest from SQL.

Redis knows each live thread, run and recent event better than SQL, and is always asked first. Where it says that it no
longer has something, SQL had it before: nothing leaves Redis that is not archived.
"""

import time
from collections.abc import Sequence

import orjson

from shared.db import history
from shared.db.engine import Database
from shared.history.steps import SeenStep, asker_of, seen
from shared.ids import minted_ms, stream_position, thread_of
from shared.threads.steps import StepRecord
from shared.threads.store import ThreadStore, after
from shared.threads.submitting import YOUNG_MS
from shared.threads.types import Run, StreamEntry, Thread
from shared.types import JSON


class History:
    """Raises AppError UNAVAILABLE where something can only be had from SQL, which is away."""

    def __init__(self, store: ThreadStore, database: Database) -> None:
        self._store = store
        self._database = database

    async def thread(self, thread_id: str) -> Thread | None:
        if found := await self._store.thread(thread_id):
            return found
        async with self._database.connect() as c:
            archived = await history.thread(c, thread_id)
        if archived is None or await self._store.was_deleted(thread_id):
            return None
        return Thread.parse(thread_id, {**archived.record, "evicted_at": ""})

    async def is_there(self, member: str) -> bool:
        """A thread or a run, evicted or not. SQL is not asked for one that is too young to have been evicted."""
        old = minted_ms(member) < time.time() * 1000 - YOUNG_MS
        where: History | ThreadStore = self if old else self._store
        return await (where.run(member) if "." in member else where.thread(member)) is not None

    async def was_deleted(self, thread_id: str) -> bool:
        """And is nowhere now. Raises AppError UNAVAILABLE where neither the thread nor its deletion is in Redis."""
        if await self._store.thread(thread_id):
            return False
        if await self._store.was_deleted(thread_id):
            return True
        async with self._database.connect() as c:
            return await history.was_deleted(c, thread_id)

    async def threads(self, thread_ids: Sequence[str]) -> list[Thread]:
        """Those that exist, in the order given."""
        found = {thread.id: thread for thread in await self._store.threads(thread_ids)}
        if missing := [thread_id for thread_id in thread_ids if thread_id not in found]:
            async with self._database.connect() as c:
                archived = await history.threads_of(c, missing)
            found |= {each.id: Thread.parse(each.id, {**each.record, "evicted_at": ""}) for each in archived}
        return [found[thread_id] for thread_id in thread_ids if thread_id in found]

    async def runs(self, run_ids: Sequence[str]) -> list[Run]:
        """Those that exist, in the order given."""
        found = {run.id: run for run in await self._store.runs(run_ids)}
        if missing := [run_id for run_id in run_ids if run_id not in found]:
            async with self._database.connect() as c:
                found |= {each.id: Run.parse(each.id, each.record) for each in await history.runs_of(c, missing)}
        return [found[run_id] for run_id in run_ids if run_id in found]

    async def run(self, run_id: str) -> Run | None:
        if found := await self._store.run(run_id):
            return found
        thread = await self._store.thread(thread_of(run_id))
        if thread and not thread.was_evicted:
            return None
        async with self._database.connect() as c:
            archived = await history.run(c, run_id)
        if archived is None or await self._store.was_deleted(run_id):
            return None
        return Run.parse(run_id, archived.record)

    async def steps(self, run_id: str, start: int = 0, count: int | None = None) -> list[StepRecord]:
        """So many steps, in the order they were started, after the first `start` ones."""
        # Read first, then asked for: what is there then has not left before it was read, or has come back since.
        if found := await self._live_steps(run_id, start, count):
            return found
        if await self._store.run(run_id):
            return await self._live_steps(run_id, start, count)
        async with self._database.connect() as c:
            return await history.run_steps(c, run_id, start, count)

    async def _live_steps(self, run_id: str, start: int, count: int | None) -> list[StepRecord]:
        if count is not None:
            return await self._store.steps(run_id, start, count)
        return (await self._store.journal(run_id))[start:]

    async def step(self, run_id: str, number: int) -> StepRecord | None:
        if found := await self._store.step(run_id, number):
            return found
        if await self._store.run(run_id):
            return None
        async with self._database.connect() as c:
            return await history.step(c, run_id, number)

    async def seen(self, run: Run, steps: Sequence[StepRecord]) -> list[SeenStep]:
        """Steps of the run with their inputs and what they follow. Reads no large values."""
        known = {step.number: step for step in steps}
        for number in {number for step in steps if (number := asker_of(step)) and number not in known}:
            if asker := await self.step(run.id, number):
                known[number] = asker
        return [seen(run, step, known.get(asker_of(step) or 0)) for step in steps]

    async def messages(self, thread_id: str, start: int = 0, count: int | None = None) -> list[JSON]:
        """The conversation as the model sees it, oldest first."""
        if found := await self._store.messages(thread_id, start, count):
            return found
        if await self._store.thread(thread_id):  # it has none, or has come back since
            return await self._store.messages(thread_id, start, count)
        async with self._database.connect() as c:
            return [orjson.loads(message) for message in await history.conversation(c, thread_id, start, count)]

    async def events_of(self, run: Run, *, since: str | None, count: int) -> list[StreamEntry]:
        """The run's first events, or its first ones after an id."""
        start = since if since and after(since, "0-0") else None
        live = await self._store.events_of(run, since=start, count=count)
        kept_from = await self._store.kept_from(run.thread_id)  # read after them: what was there then was not trimmed
        if kept_from is not None and not after(kept_from, start or run.first_event):
            return live
        before = stream_position(kept_from) if kept_from else None
        async with self._database.connect() as c:
            old = await history.run_events(c, run.id, after=stream_position(start or "0-0"), before=before, count=count)
        newest = old[-1].id if old else "0-0"
        return [*old, *(entry for entry in live if after(entry.id, newest))][:count]
