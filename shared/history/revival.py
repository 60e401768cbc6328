"""How an evicted thread comes back into Redis, when something is to be done in it."""

from functools import partial
from typing import Any

from redis.asyncio import Redis

from shared import keys
from shared.db import history
from shared.db.engine import Database
from shared.db.history import ArchivedThread
from shared.keys import ThreadKeys, thread_keys_of
from shared.redis import patiently, redis_ms
from shared.scripts import Scripts
from shared.tenant import Tenant
from shared.threads.archiving import RecordCopy
from shared.threads.submitting import deleted

FRESH_MS = 5000
"""How old what was read of SQL may be. Less than archive.evict_after_seconds, so that no thread has been revived, used
and evicted again meanwhile."""


class Revival:
    """`patience_seconds`, `replicas`: as of `Scripts`."""

    def __init__(self, client: Redis, database: Database, *, patience_seconds: float | None, replicas: int = 0) -> None:
        self._client = client
        self._database = database
        self._patience_seconds = patience_seconds
        self._scripts = Scripts(
            client,
            "shared.threads",
            *("revive", "revive_run"),
            patience_seconds=patience_seconds,
            replicas=replicas,
        )

    async def revive(self, thread_id: str, run_id: str | None = None) -> bool:
        """Whether the archive knows the thread: then it is in Redis now, and the run too if there is one.

        Raises AppError NOT_FOUND where one of them was deleted, UNAVAILABLE where SQL is away.
        """
        while True:
            began = await redis_ms(self._client, self._patience_seconds)
            # What is there may leave with more than SQL has by now: only what had left before it was read comes back.
            there = await self._there(thread_id)
            async with self._database.connect() as c:
                thread = await history.thread(c, thread_id)
                if thread is None:
                    if await history.was_deleted(c, thread_id):
                        raise deleted(thread_id)
                    return False
                messages = [] if there else await history.conversation(c, thread_id)
                run = await history.run(c, run_id) if run_id else None
                if run_id and run is None and await history.was_deleted(c, run_id):
                    raise deleted(run_id)
                journal = await history.entries(c, run.id) if run else []
            if not there and await self._revive(thread, messages, began) == "stale":
                continue
            if run is None or await self._revive_run(run, journal) != "gone":
                break
        for tenant in Tenant(thread.record["workspace"], thread.record.get("project")).seen_by:
            add = partial(self._client.zadd, keys.threads(tenant), {thread_id: 0})
            await patiently(add, self._patience_seconds)
        return True

    async def blob(self, thread_id: str, name: str) -> bytes | None:
        """A large value that an evicted thread had in Redis. Raises AppError UNAVAILABLE."""
        async with self._database.connect() as c:
            return await history.blob(c, thread_id, name)

    async def _revive(self, thread: ArchivedThread, messages: list[str], began_ms: int) -> str:
        k = ThreadKeys(thread.id)
        lists = [*_flat(thread.record), len(messages), *messages, len(thread.snapshots), *thread.snapshots]
        names = [k.metadata, k.messages, k.snapshots, k.idle, k.dirty, k.gone(thread.id)]
        answer = await self._scripts.call("revive", names, [thread.id, began_ms, FRESH_MS, *lists])
        return _undeleted(thread.id, answer[0])

    async def _revive_run(self, run: RecordCopy, journal: list[tuple[str, int, str]]) -> str:
        k = thread_keys_of(run.id)
        rows = [item for row in journal for item in row]
        names = [k.metadata, k.run(run.id), k.journal(run.id), k.steps(run.id), k.runs, k.dirty, k.gone(run.id)]
        args = [run.id, run.record["created_at"], *_flat(run.record), len(journal), *rows]
        return _undeleted(run.id, (await self._scripts.call("revive_run", names, args))[0])

    async def _there(self, thread_id: str) -> bool:
        found = await patiently(lambda: self._client.exists(ThreadKeys(thread_id).metadata), self._patience_seconds)
        return bool(found)


def _undeleted(member: str, answer: str) -> str:
    """What a script says of a thread or run, unless that it was deleted since SQL was read."""
    if answer == "deleted":
        raise deleted(member)
    return answer


def _flat(record: Any) -> list[Any]:
    """A hash as a counted list."""
    return [len(record), *(item for pair in record.items() for item in pair)]
