"""The thread store: with the Lua scripts beside it, the only code that changes a thread, a run, a stream or a journal.

What the owner of a run writes goes through its `Attempt`, which `claim` gives.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import orjson
from redis.asyncio import Redis

from shared import keys
from shared.errors import AppError, ErrorCode
from shared.ids import stream_position, thread_of
from shared.keys import ThreadKeys, thread_keys_of
from shared.redis import patiently
from shared.threads.attempt import Attempt
from shared.threads.scripts import Scripts
from shared.threads.types import (
    BusyPolicy,
    Expired,
    NewRun,
    NewThread,
    Run,
    StepRecord,
    StreamEntry,
    Submitted,
    Thread,
    time_of,
)
from shared.types import RunStatus

EVENTS_IN_ONE_READ = 500


class ThreadStore:
    """Threads in one Redis.

    `patience_seconds`: how long to wait for a Redis that is away before `redis.RedisError` is raised (None: for ever).
    `ring_seconds`: how long a runnable run may stay unclaimed before the sweeper tells the queue again.
    """

    def __init__(self, client: Redis, *, ring_seconds: float, patience_seconds: float | None) -> None:
        self._client = client
        self._scripts = Scripts(client, patience_seconds)
        self._patience_seconds = patience_seconds
        self._ring_ms = int(ring_seconds * 1000)

    async def create_thread(self, new: NewThread) -> Thread:
        """Idempotent by id."""
        await self._do(lambda: self._client.zadd(keys.threads(new.workspace), {new.id: 0}))
        fields = ["workspace", new.workspace, "metadata", orjson.dumps(new.metadata)]
        fields += ["context", orjson.dumps(new.context)]
        record = await self._scripts.call("create", [ThreadKeys(new.id).metadata], fields)
        return Thread.parse(new.id, _pairs(record))

    async def thread(self, thread_id: str) -> Thread | None:
        record = await self._do(lambda: self._client.hgetall(ThreadKeys(thread_id).metadata))
        return Thread.parse(thread_id, record) if record else None

    async def threads(self, thread_ids: Sequence[str]) -> list[Thread]:
        """Those of the threads that exist, in the order given, in one round trip."""
        found = await self._hashes([ThreadKeys(thread_id).metadata for thread_id in thread_ids])
        return [Thread.parse(i, record) for i, record in zip(thread_ids, found, strict=True) if record]

    async def thread_ids(self, workspace: str, *, before: str | None, limit: int) -> list[str]:
        """Newest first, those older than `before`."""
        newest = f"({before}" if before else "+"
        found = await self._do(
            lambda: self._client.zrevrangebylex(keys.threads(workspace), newest, "-", start=0, num=limit)
        )
        return list(found)

    async def submit(self, new: NewRun, *, queued: dict[str, Any], on_busy: BusyPolicy = "enqueue") -> Submitted:
        """Puts a run into its thread; idempotent by id. `queued` is the data of its `run.queued` event.

        Raises AppError: NOT_FOUND (no such thread), CONFLICT (archived, or busy and `on_busy` is reject).
        """
        k = thread_keys_of(new.id)
        answer = await self._scripts.call(
            "submit",
            [k.metadata, k.run(new.id), k.runs, k.queue, k.stream, k.timers],
            [k.thread_id, new.id, on_busy, self._ring_ms, orjson.dumps(queued), *new.fields()],
        )
        match answer:
            case ["accepted", created_at, status, ring]:
                return Submitted(RunStatus(status), time_of(str(created_at)), ring=bool(ring))
            case ["busy", head]:
                raise AppError(
                    ErrorCode.CONFLICT,
                    f"The thread is busy with run {head}. Wait for its end, cancel it, or send on_busy=enqueue.",
                )
            case ["archived"]:
                raise AppError(ErrorCode.CONFLICT, "The thread is archived and takes no more runs. Open a new one.")
        raise AppError(ErrorCode.NOT_FOUND, f"There is no thread {k.thread_id}.")

    async def run(self, run_id: str) -> Run | None:
        record = await self._do(lambda: self._client.hgetall(thread_keys_of(run_id).run(run_id)))
        return Run.parse(run_id, record) if record else None

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

    async def claim(self, run_id: str, worker: str, call: str) -> Attempt | None:
        """Takes a pending run for a worker; None when it is not to be had. `call`: a name, to repeat it safely."""
        k = thread_keys_of(run_id)
        answer = await self._scripts.call(
            "claim",
            [k.metadata, k.run(run_id), k.journal(run_id), k.messages, k.stream, k.live, k.timers],
            [k.thread_id, run_id, worker, call],
        )
        if answer[0] != "claimed":
            return None
        _, record, journal, messages, metadata = answer
        return Attempt(
            self._scripts,
            ring_ms=self._ring_ms,
            run=Run.parse(run_id, _pairs(record)),
            thread=Thread.parse(k.thread_id, _pairs(metadata)),
            journal=[StepRecord.parse(key, entry) for key, entry in _pairs(journal).items()],
            messages=[orjson.loads(message) for message in messages],
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
            self._ending_keys(run_id),
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
            self._ending_keys(run_id),
            [thread_of(run_id), run_id, self._ring_ms, orjson.dumps({"reason": reason})],
        )
        run = await self.run(run_id) if answer[0] != "not_found" else None
        if run is None:
            raise AppError(ErrorCode.NOT_FOUND, f"There is no run {run_id}.")
        return run, answer[1] or None if answer[0] in ("canceled", "ended") else None

    async def cancel_requested(self, run_ids: Iterable[str]) -> set[str]:
        """Those of the runs that somebody asked to cancel, in one round trip."""
        ids = list(run_ids)
        pipeline = self._client.pipeline(transaction=False)
        for run_id in ids:
            pipeline.hget(thread_keys_of(run_id).run(run_id), "cancel")
        flags = await pipeline.execute() if ids else []
        return {run_id for run_id, flag in zip(ids, flags, strict=True) if flag}

    def _ending_keys(self, run_id: str) -> list[str]:
        k = thread_keys_of(run_id)
        return [k.run(run_id), k.metadata, k.stream, k.queue, k.live, k.timers]

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
