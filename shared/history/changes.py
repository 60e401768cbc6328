"""What the owner of a thread or a run does to it from outside: names it, labels it, archives it, deletes it."""

import logging
from collections.abc import Iterable, Mapping
from functools import partial

import orjson
from redis.asyncio import Redis

from shared import keys
from shared.db import archive, history
from shared.db.engine import Database
from shared.errors import AppError, ErrorCode
from shared.keys import ThreadKeys, thread_keys_of
from shared.payloads.blobs import Ref
from shared.redis import patiently
from shared.scripts import Scripts
from shared.tenant import Tenant
from shared.threads.archiving import Archiving, refs_of_record, refs_of_snapshots
from shared.threads.steps import StepRecord
from shared.threads.store import ThreadStore
from shared.threads.types import Run, Thread
from shared.types import JSON

EVENTS_AT_ONCE = 500

log = logging.getLogger("trunkline.history")


class Changes:
    """Brings back what was evicted, where it must: then it raises AppError UNAVAILABLE while SQL is away."""

    def __init__(
        self,
        client: Redis,
        store: ThreadStore,
        database: Database,
        *,
        patience_seconds: float | None,
        replicas: int = 0,
    ) -> None:
        self._client = client
        self._store = store
        self._database = database
        self._archiving = Archiving(client, patience_seconds=patience_seconds, replicas=replicas)
        self._patience_seconds = patience_seconds
        self._scripts = Scripts(
            client,
            "shared.threads",
            *("patch", "delete_run", "delete_thread"),
            patience_seconds=patience_seconds,
            replicas=replicas,
        )

    async def patch_run(self, run: Run, fields: Mapping[str, str | JSON]) -> None:
        """Sets `name` and `labels`. Raises AppError NOT_FOUND."""
        await self._store.bring_back(run.thread_id, run.id)
        k = thread_keys_of(run.id)
        await self._patch(k.run(run.id), k.dirty, run.id, fields)

    async def patch_thread(self, thread: Thread, fields: Mapping[str, str | JSON]) -> None:
        """Sets `name`, `metadata` and `status`: an archived thread takes no more runs. Raises AppError NOT_FOUND."""
        await self._store.bring_back(thread.id)
        k = ThreadKeys(thread.id)
        await self._patch(k.metadata, k.dirty, thread.id, fields)

    async def _patch(self, name: str, dirty: str, member: str, fields: Mapping[str, str | JSON]) -> None:
        if not fields:
            return
        texts = {key: value if isinstance(value, str) else orjson.dumps(value) for key, value in fields.items()}
        flat = [item for pair in texts.items() for item in pair]
        answer = await self._scripts.call("patch", [name, dirty], [member, len(texts), *flat])
        if answer[0] == "not_found":
            raise AppError(ErrorCode.NOT_FOUND, f"There is no {'run' if '.' in member else 'thread'} {member}.")

    async def delete_run(self, run: Run) -> None:
        """With its steps and events; its messages stay. Raises AppError CONFLICT until it has ended."""
        await self._store.bring_back(run.thread_id, run.id)
        k = thread_keys_of(run.id)
        blobs = _gone(await self._refs_of_it_alone(run))
        names = [k.run(run.id), k.runs, k.timers, k.dirty, *k.of_run(run.id)[1:]]
        answer = await self._scripts.call("delete_run", names, [run.id, len(blobs), *blobs])
        if answer[0] == "busy":
            raise AppError(ErrorCode.CONFLICT, f"Run {run.id} has not ended. Cancel it first.")
        await self._delete_events(run)
        await self._do(lambda: self._client.zrem(keys.current_runs(run.workspace), run.id))
        await self._forget(run.id)

    async def _delete_events(self, run: Run) -> None:
        stream, since = thread_keys_of(run.id).stream, "0-0"
        while found := await self._store.events_of(run, since=since, count=EVENTS_AT_ONCE):
            await self._do(lambda: self._client.xdel(stream, *(entry.id for entry in found)))
            since = found[-1].id

    async def delete_thread(self, thread: Thread) -> None:
        """With all that is its own but its sandbox. Raises AppError CONFLICT while a run goes on in it."""
        await self._store.bring_back(thread.id)
        k, answer = ThreadKeys(thread.id), "changed"
        while answer == "changed":
            resting = await self._archiving.resting(thread.id)
            refs = [*await self._archiving.refs(resting.runs), *refs_of_snapshots(resting.snapshots)]
            refs += await self._archived_refs(thread.workspace, thread.id) if thread.was_evicted else []
            blobs = _gone(refs)
            names = [k.metadata, k.runs, k.timers, k.dirty, k.idle, k.stream, k.messages, k.queue, k.snapshots]
            names += [name for run_id in resting.runs for name in k.of_run(run_id)]
            head = [thread.id, resting.record.get("last_id", ""), len(resting.runs), *resting.runs]
            [answer] = await self._scripts.call("delete_thread", names, [*head, len(blobs), *blobs])
        if answer == "busy":
            raise AppError(ErrorCode.CONFLICT, f"A run goes on in thread {thread.id}. Cancel it first.")
        for project in {None, thread.project}:
            await self._do(partial(self._client.zrem, keys.threads(thread.workspace, project), thread.id))
        if resting.runs:
            await self._do(lambda: self._client.zrem(keys.current_runs(thread.workspace), *resting.runs))
        await self._forget(thread.id)

    async def _refs_of_it_alone(self, run: Run) -> set[Ref]:
        """Retries name what the runs before them have named."""
        mine = set(await self._archiving.refs([run.id]))
        if not mine:
            return mine
        others = [run_id for run_id in await self._store.run_ids(run.thread_id) if run_id != run.id]
        mine -= set(await self._archiving.refs(others))
        return mine - set(await self._archived_refs(run.workspace, run.thread_id, but=run.id))

    async def _archived_refs(self, workspace: str, thread_id: str, *, but: str | None = None) -> list[Ref]:
        """Those that the archive's runs name."""
        found: list[Ref] = []
        async with self._database.connect() as c:
            wanted = history.RunFilter(thread_id=thread_id)
            for run in await history.run_page(c, Tenant(workspace), wanted, after=None, limit=1_000_000):
                if run.id == but:
                    continue
                found += refs_of_record(run.record)
                found += [ref for key, _, entry in await history.entries(c, run.id) for ref in _refs(key, entry)]
        return found

    async def _forget(self, member: str) -> None:
        """At once, so that lists do not show it any more. While SQL is away its mark does, later."""
        try:
            async with self._database.begin() as c:
                await archive.forget(c, [member])
        except AppError as error:
            log.warning("%s is deleted from SQL later: %s", member, error.detail)

    async def _do(self, call: object) -> None:
        await patiently(call, self._patience_seconds)  # type: ignore[arg-type]


def _gone(refs: Iterable[Ref]) -> list[str]:
    """As the agenda has what is to be deleted; a blob of another thread is not this one's to delete."""
    return sorted({f"gone{ref.marker.removeprefix('blob')}" for ref in refs})


def _refs(key: str, entry: str) -> list[Ref]:
    return StepRecord.parse(key, entry).refs
