"""The thread store: how threads are read, and how runs come into them, are claimed, answered and canceled.

What the owner of a run writes goes through its `Attempt`, which `claim` gives.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
from redis.asyncio import Redis

from shared import keys
from shared.config import Settings
from shared.errors import AppError, ErrorCode
from shared.ids import minted_ms, stream_position, thread_of
from shared.keys import ThreadKeys, thread_keys_of
from shared.payloads.payloads import Payloads
from shared.redis import patiently, redis_ms
from shared.scripts import Scripts
from shared.tenant import Tenant
from shared.threads.attempt import Attempt, Lacking, known_of
from shared.threads.brief import encode_brief
from shared.threads.copies import Copies
from shared.threads.steps import Answer, StepRecord
from shared.threads.submitting import YOUNG_MS, Cold, deleted, refused, submission
from shared.threads.timers import Timers
from shared.threads.types import (
    DELETED,
    BusyPolicy,
    Expired,
    Holding,
    NewRun,
    NewThread,
    Run,
    Signaled,
    StreamEntry,
    Submitted,
    Thread,
    time_of,
)
from shared.types import JSON, EventType, RunStatus, StepStatus, WaitKind

SCRIPTS = ("create", "submit", "claim", "emit", "commit", "release", "expire", "cancel", "signal", "inject")
EVENTS_IN_ONE_READ = 500


class ThreadStore:
    """Threads in one Redis.

    `patience_seconds`, `replicas`: as of `Scripts`.
    `ring_seconds`: how long a runnable run may stay unclaimed before the sweeper tells the queue again.
    `payloads`: where large results are; by default with their threads.
    `cold`: brings evicted threads back when a run is submitted in one; None: nothing is ever evicted.
    """

    def __init__(
        self,
        client: Redis,
        *,
        ring_seconds: float,
        patience_seconds: float | None,
        replicas: int = 0,
        payloads: Payloads | None = None,
        cold: Cold | None = None,
    ) -> None:
        self.payloads = payloads or Payloads.over(client, Settings(), patience_seconds=patience_seconds)
        self.copies = Copies(client, self.payloads, patience_seconds=patience_seconds)
        self.timers = Timers(client, patience_seconds=patience_seconds)
        self._client = client
        self._scripts = Scripts(client, __package__, *SCRIPTS, patience_seconds=patience_seconds, replicas=replicas)
        self._patience_seconds = patience_seconds
        self._ring_ms = int(ring_seconds * 1000)
        self._cold = cold

    async def create_thread(self, new: NewThread, messages: Sequence[JSON] = ()) -> Thread:
        """Idempotent by id, evicted or not. `messages`: the conversation that it begins with.

        Raises AppError NOT_FOUND where it was deleted.
        """
        if self._cold and not new.derived and minted_ms(new.id) < time.time() * 1000 - YOUNG_MS:
            await self._cold.revive(new.id)
        for tenant in Tenant(new.workspace, new.project).seen_by:
            await self._do(partial(self._client.zadd, keys.threads(tenant), {new.id: 0}))
        k, fields = ThreadKeys(new.id), new.fields()
        args = [new.id, len(fields) // 2, *fields, len(messages), *map(orjson.dumps, messages)]
        record = await self._scripts.call("create", [k.metadata, k.messages, k.dirty, k.gone(new.id)], args)
        if not record:
            raise deleted(new.id)
        return Thread.parse(new.id, _pairs(record))

    async def bring_back(self, thread_id: str, run_id: str | None = None) -> bool:
        """Into Redis where it was evicted, with that run. Whether the thread is there now.

        Raises AppError UNAVAILABLE, NOT_FOUND: one of the two was deleted.
        """
        k = ThreadKeys(thread_id)
        wanted = k.run(run_id) if run_id else k.metadata
        if await self._do(lambda: self._client.exists(wanted)):
            return True
        return self._cold is not None and await self._cold.revive(thread_id, run_id)

    async def was_deleted(self, member: str) -> bool:
        """A thread or a run that SQL may still have: it learns of the deletion later."""
        k = thread_keys_of(member)
        return bool(await self._do(lambda: self._client.hget(k.dirty, member)) == DELETED)

    async def thread(self, thread_id: str) -> Thread | None:
        record = await self._do(lambda: self._client.hgetall(ThreadKeys(thread_id).metadata))
        return Thread.parse(thread_id, record) if record else None

    async def threads(self, thread_ids: Sequence[str]) -> list[Thread]:
        """Those of the threads that exist, in the order given, in one round trip."""
        found = await self._hashes([ThreadKeys(thread_id).metadata for thread_id in thread_ids])
        return [Thread.parse(i, record) for i, record in zip(thread_ids, found, strict=True) if record]

    async def thread_ids(self, tenant: Tenant, *, before: str | None, limit: int) -> list[str]:
        """Newest first, those older than `before`."""
        newest = f"({before}" if before else "+"
        name = keys.threads(tenant)
        found = await self._do(lambda: self._client.zrevrangebylex(name, newest, "-", start=0, num=limit))
        return list(found)

    async def submit(self, new: NewRun, *, queued: dict[str, Any], on_busy: BusyPolicy = "enqueue") -> Submitted:
        """Puts a run into its thread, evicted or not; idempotent by id. `queued` is the data of its `run.queued` event.

        Raises AppError: NOT_FOUND (no such thread), CONFLICT (archived, or busy and `on_busy` is reject),
        RESULT_TOO_LARGE (its input), UNAVAILABLE (its steps were copied more than an hour ago, or its thread is only in
        SQL, which is away).
        """
        data = self.payloads.encoded(new.input, "The run's input")
        input_ref = await self.payloads.kept(thread_of(new.id), data)
        await self._do(lambda: self._client.zadd(keys.current_runs(new.workspace), {new.id: minted_ms(new.id)}))
        answer, interrupted, sought = ["changed"], list[str](), False
        while answer == ["changed"]:
            names, args = submission(new, input_ref, queued, on_busy, interrupted, ring_ms=self._ring_ms, sought=sought)
            answer = await self._scripts.call("submit", names, args)
            if answer == ["changed"]:
                interrupted = await self.unfinished(thread_of(new.id))
            elif answer[0] in ("not_found", "evicted") and self._cold and not sought:
                found, sought = await self._cold.revive(thread_of(new.id), new.id), True
                answer = ["changed"] if found or answer[0] == "evicted" else answer
        status = RunStatus(answer[2]) if answer[0] == "accepted" else None
        if status is None or (status.terminal and not answer[4]):
            await self._do(lambda: self._client.zrem(keys.current_runs(new.workspace), new.id))
        if status:
            return Submitted(status, time_of(str(answer[1])), answer[3] or None)
        if answer == ["missing"] and not new.steps:
            return await self.submit(new, queued=queued, on_busy=on_busy)
        raise refused(new, answer)

    async def unfinished(self, thread_id: str) -> list[str]:
        """The thread's head run and those behind it."""
        k = ThreadKeys(thread_id)

        async def read() -> list[str]:
            pipeline = self._client.pipeline(transaction=True)
            pipeline.hget(k.metadata, "head")
            pipeline.lrange(k.queue, 0, -1)
            head, queued = await pipeline.execute()
            return [head, *queued] if head else []

        return list(await self._do(read))

    async def run(self, run_id: str) -> Run | None:
        record = await self._do(lambda: self._client.hgetall(thread_keys_of(run_id).run(run_id)))
        return Run.parse(run_id, record) if record else None

    async def holding(self, run_id: str) -> Holding | None:
        names = ["workspace", "key_id", "worker", "epoch"]
        found = await self._do(lambda: self._client.hmget(thread_keys_of(run_id).run(run_id), names))
        workspace, key_id, worker, epoch = found
        return None if workspace is None else Holding(run_id, workspace, key_id, worker or None, int(epoch))

    async def runs(self, run_ids: Sequence[str]) -> list[Run]:
        """Those of the runs that exist, in the order given, in one round trip."""
        found = await self._hashes([thread_keys_of(run_id).run(run_id) for run_id in run_ids])
        return [Run.parse(i, record) for i, record in zip(run_ids, found, strict=True) if record]

    async def run_ids(self, thread_id: str, start: int = 0, count: int | None = None) -> list[str]:
        """Oldest first."""
        stop = -1 if count is None else start + count - 1
        return list(await self._do(lambda: self._client.zrange(ThreadKeys(thread_id).runs, start, stop)))

    async def journal(self, run_id: str) -> list[StepRecord]:
        """The run's steps in the order they were started."""
        entries = await self._do(lambda: self._client.hgetall(thread_keys_of(run_id).journal(run_id)))
        return sorted((StepRecord.parse(key, entry) for key, entry in entries.items()), key=lambda step: step.number)

    async def messages(self, thread_id: str, start: int = 0, count: int | None = None) -> list[dict[str, Any]]:
        """The conversation as the model sees it, oldest first."""
        stop = -1 if count is None else start + count - 1
        found = await self._do(lambda: self._client.lrange(ThreadKeys(thread_id).messages, start, stop))
        return [orjson.loads(message) for message in found]

    async def events(self, thread_id: str, after: str = "0-0", count: int = 500) -> list[StreamEntry]:
        found = await self._do(lambda: self._client.xrange(ThreadKeys(thread_id).stream, f"({after}", "+", count))
        return [_entry(entry_id, fields) for entry_id, fields in found]

    async def events_of(self, run: Run, *, since: str | None, count: int) -> list[StreamEntry]:
        """The run's first events, or its first ones after an id. Other runs' events lie between them."""
        start = run.first_event if since is None or after(run.first_event, since) else f"({since}"
        stream, end = thread_keys_of(run.id).stream, run.last_event or "+"
        events: list[StreamEntry] = []
        while len(events) < count:
            read = partial(self._client.xrange, stream, start, end, EVENTS_IN_ONE_READ)
            found = await self._do(read)
            events += [_entry(entry_id, fields) for entry_id, fields in found if fields["r"] == run.id]
            if len(found) < EVENTS_IN_ONE_READ:
                break
            start = f"({found[-1][0]}"
        return events[:count]

    async def kept_from(self, thread_id: str) -> str | None:
        """The stream has all events from this id on; older ones are in SQL. None: the thread is not in Redis."""
        k = ThreadKeys(thread_id)
        known, there = await self._do(lambda: self._client.hmget(k.metadata, ["kept_from", "created_at"]))
        return (known or "0-0") if there else None

    async def claim(
        self,
        run_id: str,
        worker: str,
        call: str,
        *,
        known: Attempt | None = None,
        functions: Sequence[str] | None = None,
    ) -> Attempt | None:
        """Takes a pending run for a worker; None when it is not to be had. `call`: a name, to repeat it safely.

        `known`: an earlier attempt at the run, by whomever; only what is new since is read.
        `functions`: what the worker has, as `name` and `name@version` (None: it takes every run). Raises Lacking.
        """
        k = thread_keys_of(run_id)
        answer = await self._scripts.call(
            "claim",
            [
                k.metadata,
                k.run(run_id),
                k.journal(run_id),
                k.messages,
                k.stream,
                k.live,
                k.rings,
                k.steps(run_id),
                k.dirty,
            ],
            [k.thread_id, run_id, worker, call, *known_of(known, functions)],
        )
        if answer[0] == "lacking":
            raise Lacking(answer[1])
        if answer[0] != "claimed":
            return None
        _, record, journal, messages, metadata = answer
        steps = {key: StepRecord.parse(key, entry) for key, entry in _pairs(journal).items()}
        added = [orjson.loads(message) for message in messages]
        return Attempt(
            self._scripts,
            self.payloads,
            ring_ms=self._ring_ms,
            run=Run.parse(run_id, _pairs(record)),
            thread=Thread.parse(k.thread_id, _pairs(metadata)),
            journal={**known.journal, **steps} if known else steps,
            messages=[*known.messages, *added] if known else added,
            size=sum(map(len, [*journal, *messages])) + (known.size if known else 0),
        )

    async def expire(self, run_id: str, worker: str, *, max_attempts: int) -> Expired:
        """Takes a run from a worker that has died, or that cannot go on with it.

        After `max_attempts` attempts in a row that committed nothing, the run fails.
        """
        error = {
            "code": ErrorCode.NO_PROGRESS,
            "detail": f"{max_attempts} attempts in a row ended before a step of this run was finished: the worker died "
            "or could not go on. Its log says why (memory, a native crash, data that it cannot read).",
        }
        answer = await self._scripts.call(
            "expire",
            thread_keys_of(run_id).of_ending(run_id),
            [
                thread_of(run_id),
                run_id,
                worker,
                self._ring_ms,
                max_attempts,
                orjson.dumps({"error": error}),
                orjson.dumps(error),
            ],
        )
        return Expired(ring=answer[1] or None, failed=answer[0] == "failed")

    async def cancel(self, run_id: str, *, reason: str) -> tuple[Run, str | None]:
        """Asks for the end of a run. Returns the run as it now is, and the run to ring for, if any.

        A run that has ended stays as it is. Raises AppError NOT_FOUND.
        """
        answer = await self._scripts.call(
            "cancel",
            thread_keys_of(run_id).of_ending(run_id),
            [thread_of(run_id), run_id, self._ring_ms, orjson.dumps({"reason": reason})],
        )
        run = await self.run(run_id) if answer[0] != "not_found" else None
        if run is None:
            raise AppError(ErrorCode.NOT_FOUND, f"There is no run {run_id}.")
        return run, answer[1] or None

    async def signal(
        self, run_id: str, step_key: str, answer: Answer, kinds: Iterable[WaitKind], *, by: str = ""
    ) -> Signaled | None:
        """Answers an open wait of one of the kinds. Repeated, it changes nothing. None: there is no such step.

        `by`: a name for who answers. The run remembers it, so that a repetition is told that it has answered.
        """
        k = thread_keys_of(run_id)
        waits = [k.waits(run_id), k.live, k.rings, k.timers, k.dirty]
        ill = answer.status in (StepStatus.FAILED, StepStatus.CANCELED)
        event = EventType.STEP_FAILED if ill else EventType.STEP_COMPLETED
        shown = orjson.dumps({"key": step_key, **answer.shown()})
        places = [k.run(run_id), k.metadata, k.stream, k.journal(run_id), *waits]
        found, allowed = ["missing"], f",{','.join(kinds)},"
        result = orjson.dumps(answer.result)
        while found[0] == "missing":
            ref = await self.payloads.kept(k.thread_id, result)
            given = replace(answer, result=None, payload=ref) if ref else answer
            head = [k.thread_id, run_id, step_key, given.status, given.encode(), event, shown, self._ring_ms, allowed]
            head.append(by)
            found = await self._scripts.call("signal", places, [*head, *([1, ref.marker] if ref else [0])])
        return None if found[0] == "not_found" else Signaled(found[0] == "answered", found[1] or None)

    async def inject(self, run_id: str, message: JSON) -> bool:
        """Puts a message (with an `id` of its own) into a run that goes on; whether it still does."""
        k = thread_keys_of(run_id)
        answer = await self._scripts.call(
            "inject",
            [k.run(run_id), k.metadata, k.stream, k.inbox(run_id), k.dirty],
            [k.thread_id, run_id, orjson.dumps(message), encode_brief(message)],
        )
        return bool(answer[0] == "accepted")

    async def inbox(self, run_id: str, start: int) -> list[JSON]:
        """The messages that were put into the run, from the n-th on."""
        found = await self._do(lambda: self._client.lrange(thread_keys_of(run_id).inbox(run_id), start, -1))
        return [orjson.loads(message) for message in found]

    async def step_of(self, run_id: str, step_key: str) -> StepRecord | None:
        entry = await self._do(lambda: self._client.hget(thread_keys_of(run_id).journal(run_id), step_key))
        return StepRecord.parse(step_key, entry) if entry else None

    async def step(self, run_id: str, number: int) -> StepRecord | None:
        k = thread_keys_of(run_id)
        keys_of_it = await self._do(lambda: self._client.zrangebyscore(k.steps(run_id), number, number))
        return await self.step_of(run_id, keys_of_it[0]) if keys_of_it else None

    async def steps(self, run_id: str, start: int, count: int) -> list[StepRecord]:
        """A page of the journal: so many steps, in the order they were started, after the first `start` ones."""
        k = thread_keys_of(run_id)
        found = await self._do(lambda: self._client.zrange(k.steps(run_id), start, start + count - 1))
        entries = await self._do(lambda: self._client.hmget(k.journal(run_id), found)) if found else []
        return [StepRecord.parse(key, entry) for key, entry in zip(found, entries, strict=True) if entry]

    async def now_ms(self) -> int:
        """Redis' time."""
        return await redis_ms(self._client, self._patience_seconds)

    async def cancel_requested(self, run_ids: Iterable[str]) -> set[str]:
        """Those of the runs that somebody asked to cancel, in one round trip."""
        ids = list(run_ids)
        pipeline = self._client.pipeline(transaction=False)
        for run_id in ids:
            pipeline.hget(thread_keys_of(run_id).run(run_id), "cancel")
        flags = await pipeline.execute(raise_on_error=False) if ids else []
        return {run_id for run_id, flag in zip(ids, flags, strict=True) if flag and not isinstance(flag, Exception)}

    async def _hashes(self, names: list[str]) -> list[dict[str, str]]:
        async def read() -> list[dict[str, str]]:
            pipeline = self._client.pipeline(transaction=False)
            for name in names:
                pipeline.hgetall(name)
            return list(await pipeline.execute())

        return await self._do(read) if names else []

    async def _do(self, call: Any) -> Any:
        return await patiently(call, self._patience_seconds)


def after(one: str, other: str) -> bool:
    """Whether a stream id is later than another."""
    return stream_position(one) > stream_position(other)


def _entry(entry_id: str, fields: Mapping[str, str]) -> StreamEntry:
    return StreamEntry(id=entry_id, type=fields["t"], run_id=fields["r"], event=fields["e"].encode())


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
