"""What the owner of a thread or a run does to it from outside: names it, labels it, archives it, deletes it."""

import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import orjson
from redis.asyncio import Redis

from shared import keys
from shared.db import archive, history
from shared.db.engine import Database
from shared.db.rows import stale
from shared.errors import AppError, ErrorCode
from shared.ids import thread_of
from shared.keys import ThreadKeys, thread_keys_of
from shared.payloads.blobs import Ref
from shared.redis import patiently
from shared.scripts import Scripts
from shared.tenant import Tenant
from shared.threads.archiving import Archiving, refs_of_record, refs_of_snapshots
from shared.threads.store import ThreadStore
from shared.threads.types import Run, Thread
from shared.types import JSON

EVENTS_AT_ONCE = 500
TRIES = 3
"""Of what is evicted or revived just when it is changed; the next such move is a minute away."""

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

    async def patch_run(self, run: Run, fields: Mapping[str, str | JSON], *, expected: int | None = None) -> None:
        """Sets `name` and `labels`. Raises AppError NOT_FOUND, CONFLICT: it is of another version than expected."""
        await self._patch(thread_keys_of(run.id).run(run.id), run.id, fields, expected)

    async def patch_thread(
        self, thread: Thread, fields: Mapping[str, str | JSON], *, expected: int | None = None
    ) -> None:
        """Sets `name`, `metadata` and `status`: an archived thread takes no more runs. Raises as `patch_run`."""
        await self._patch(ThreadKeys(thread.id).metadata, thread.id, fields, expected)

    async def _patch(self, name: str, member: str, fields: Mapping[str, str | JSON], expected: int | None) -> None:
        if not fields and expected is None:
            return
        texts = {key: value if isinstance(value, str) else orjson.dumps(value) for key, value in fields.items()}
        flat = [item for pair in texts.items() for item in pair]
        names, head = [name, thread_keys_of(member).dirty], [member, _text(expected), secrets.token_hex(8)]
        for _ in range(TRIES):
            await self._bring_back(member)
            answer = await self._scripts.call("patch", names, [*head, len(texts), *flat])
            _check(answer, expected)
            if answer == ["patched"]:
                return
        raise _moving(member)

    async def _bring_back(self, member: str) -> None:
        """A thread, or a run with its own. Raises AppError NOT_FOUND."""
        if not await self._store.bring_back(thread_of(member), member if "." in member else None):
            raise AppError(ErrorCode.NOT_FOUND, f"There is no {'run' if '.' in member else 'thread'} {member}.")

    async def delete_run(self, run: Run, *, expected: int | None = None) -> None:
        """With its steps and events; its messages stay.

        Raises AppError NOT_FOUND, CONFLICT: it has not ended, or is of another version than expected.
        An evicted thread stays where it is: a deletion of many does not fill Redis with them.
        """
        for _ in range(TRIES):
            live = await self._store.kept_from(run.thread_id) is not None
            if live:
                await self._bring_back(run.id)
            refs = await self._refs_of_it_alone(run, live=live)
            answer = await self._delete_run(run, refs, expected, live=live)
            if answer == "busy":
                raise AppError(ErrorCode.CONFLICT, f"Run {run.id} has not ended. Cancel it first.")
            if answer == "deleted":
                await self._delete_events(run)
                await self._do(lambda: self._client.zrem(keys.current_runs(run.workspace), run.id))
                await self._forget(run.id, refs)
                return
        raise _moving(run.id)

    async def _delete_run(self, run: Run, refs: Iterable[Ref], expected: int | None, *, live: bool) -> str:
        k, blobs = thread_keys_of(run.id), _gone(refs)
        names = [k.run(run.id), k.runs, k.timers, k.dirty, k.metadata, *k.of_run(run.id)[1:]]
        where = "redis" if live else "archive"
        if not live and expected not in (None, run.revision):
            raise stale(expected, run.revision)
        answer = await self._scripts.call("delete_run", names, [run.id, _text(expected), where, len(blobs), *blobs])
        _check(answer, expected)
        return str(answer[0])

    async def _delete_events(self, run: Run) -> None:
        stream, since = thread_keys_of(run.id).stream, "0-0"
        while found := await self._store.events_of(run, since=since, count=EVENTS_AT_ONCE):
            await self._do(lambda: self._client.xdel(stream, *(entry.id for entry in found)))
            since = found[-1].id

    async def delete_thread(self, thread: Thread, *, expected: int | None = None) -> None:
        """With all that is its own but its sandbox.

        Raises AppError NOT_FOUND, CONFLICT: a run goes on in it, or it is of another version than expected.
        """
        k, answer = ThreadKeys(thread.id), "changed"
        while answer == "changed":
            await self._bring_back(thread.id)
            resting = await self._archiving.resting(thread.id)
            refs = [*await self._archiving.refs(resting.runs), *refs_of_snapshots(resting.snapshots)]
            if "evicted_at" in resting.record:
                refs += [ref for _, ref in await self._archived_refs(thread.id)]
            blobs = _gone(refs)
            names = [k.metadata, k.runs, k.timers, k.dirty, k.idle, k.stream, k.messages, k.queue, k.snapshots]
            names += [name for run_id in resting.runs for name in k.of_run(run_id)]
            head = [thread.id, _text(expected), resting.record.get("last_id", ""), len(resting.runs), *resting.runs]
            [answer, *rest] = await self._scripts.call("delete_thread", names, [*head, len(blobs), *blobs])
            _check([answer, *rest], expected)
        if answer == "busy":
            raise AppError(ErrorCode.CONFLICT, f"A run goes on in thread {thread.id}. Cancel it first.")
        for tenant in Tenant(thread.workspace, thread.project).seen_by:
            await self._do(partial(self._client.zrem, keys.threads(tenant), thread.id))
        if resting.runs:
            await self._do(lambda: self._client.zrem(keys.current_runs(thread.workspace), *resting.runs))
        await self._forget(thread.id)

    async def _refs_of_it_alone(self, run: Run, *, live: bool) -> set[Ref]:
        """Retries name what the runs before them have named."""
        if not live:
            named = await self._archived_refs(run.thread_id)
            return {ref for run_id, ref in named if run_id == run.id} - {ref for i, ref in named if i != run.id}
        mine = set(await self._archiving.refs([run.id]))
        if not mine:
            return mine
        others = [run_id for run_id in await self._store.run_ids(run.thread_id) if run_id != run.id]
        mine -= set(await self._archiving.refs(others))
        return mine - {ref for run_id, ref in await self._archived_refs(run.thread_id) if run_id != run.id}

    async def _archived_refs(self, thread_id: str) -> list[tuple[str, Ref]]:
        """What the archive's runs of a thread name, each with the run's id."""
        async with self._database.connect() as c:
            runs = await history.runs_of_thread(c, thread_id)
            steps = await history.entries_with_refs(c, thread_id)
        found = [(run.id, ref) for run in runs for ref in refs_of_record(run.record)]
        return [*found, *((run_id, ref) for run_id, step in steps for ref in step.refs)]

    async def _forget(self, member: str, refs: Iterable[Ref] = ()) -> None:
        """At once, so that lists do not show it any more. While SQL is away its mark does, later.

        `refs`: of a run that is deleted, the large values that are nobody's now.
        """
        try:
            async with self._database.begin() as c:
                await archive.forget(c, [member])
                await archive.drop_blobs(c, thread_of(member), [ref.name for ref in refs])
        except AppError as error:
            log.warning("%s is deleted from SQL later: %s", member, error.detail)

    async def _do(self, call: object) -> None:
        await patiently(call, self._patience_seconds)  # type: ignore[arg-type]


def _text(expected: int | None) -> str:
    return "" if expected is None else str(expected)


def _check(answer: Sequence[str], expected: int | None) -> None:
    """Raises AppError CONFLICT where a script met another version than the expected one."""
    if answer[0] == "stale":
        raise stale(expected, int(answer[1]))


def _moving(member: str) -> AppError:
    detail = f"{member} is being archived or brought back just now. Try again."
    return AppError(ErrorCode.UNAVAILABLE, detail, retry_after=1)


def _gone(refs: Iterable[Ref]) -> list[str]:
    """As the agenda has what is to be deleted; a blob of another thread is not this one's to delete."""
    return sorted({f"gone{ref.marker.removeprefix('blob')}" for ref in refs})
