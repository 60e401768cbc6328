"""What its owner does to a thread or a run while others evict it, revive it or delete it."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import select

from shared import keys
from shared.db import history
from shared.db.engine import Database
from shared.db.tables.archive import blobs
from shared.errors import AppError
from shared.history.revival import Revival
from shared.threads.store import ThreadStore
from shared.threads.types import NewRun, NewThread
from tests.support.archive import House

Meanwhile = Callable[[], Awaitable[object]]


@pytest.fixture
def house(client: Redis, database: Database) -> House:
    return House(client, database)


class Interrupted(Revival):
    """Something happens between its reading of SQL and each of its calls of Redis."""

    def __init__(self, house: House, **meanwhile: Meanwhile) -> None:
        super().__init__(house.client, house.database, patience_seconds=2)
        self._meanwhile = meanwhile

    async def _revive(self, *args: Any) -> str:
        await self._happens("thread")
        return await super()._revive(*args)

    async def _revive_run(self, *args: Any) -> str:
        await self._happens("run")
        return await super()._revive_run(*args)

    async def _happens(self, when: str) -> None:
        if what := self._meanwhile.pop(when, None):
            await what()


async def is_gone(house: House, thread_id: str, *run_ids: str) -> bool:
    """For Redis, for SQL, and for the API."""
    known = [await house.history.thread(thread_id), *[await house.history.run(run_id) for run_id in run_ids]]
    return not any(known) and await house.keys() == []


@pytest.mark.parametrize("archived", [False, True])
async def test_a_thread_that_is_deleted_while_it_is_revived_stays_deleted(house: House, archived: bool) -> None:
    thread = await house.thread()
    run = await house.ended(thread.id)
    await house.evict()

    async def deleted() -> None:
        await house.changes.delete_thread(thread)
        if archived:  # its mark has gone
            await house.archive()

    with pytest.raises(AppError, match="was deleted"):
        await Interrupted(house, thread=deleted).revive(thread.id, run.id)
    assert await is_gone(house, thread.id, run.id)


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("evicted", [False, True])
async def test_a_run_that_is_deleted_while_it_is_revived_stays_deleted(
    house: House, archived: bool, evicted: bool
) -> None:
    thread = await house.thread()
    run = await house.ended(thread.id, size=100_000)
    await house.evict()

    async def deleted() -> None:
        await house.changes.delete_run(run)
        if archived:
            await house.archive()

    when = {"thread" if evicted else "run": deleted}
    with pytest.raises(AppError, match="was deleted"):
        await Interrupted(house, **when).revive(thread.id, run.id)
    assert await house.store.run(run.id) is None
    assert await house.history.run(run.id) is None
    assert await house.history.thread(thread.id)
    await house.evict()
    async with house.database.connect() as c:
        assert await history.run(c, run.id) is None


async def test_what_is_deleted_while_sql_is_away_is_not_read_from_it_afterwards(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = await house.thread()
    run = await house.ended(thread.id)
    await house.archive()

    async def later(_: str) -> None: ...

    monkeypatch.setattr(house.changes, "_forget", later)
    await house.changes.delete_thread(thread)
    assert await is_gone(house, thread.id)
    with pytest.raises(AppError, match="was deleted"):
        await Revival(house.client, house.database, patience_seconds=2).revive(thread.id)
    await house.archive()
    assert await is_gone(house, thread.id, run.id)


@pytest.mark.parametrize("archived", [False, True])
async def test_a_deleted_thread_is_not_made_anew_by_who_repeats_its_making(house: House, archived: bool) -> None:
    thread = await house.thread()
    await house.archive()
    await house.changes.delete_thread(thread)
    if archived:
        await house.archive()
    with pytest.raises(AppError, match="was deleted"):
        await house.store.create_thread(NewThread(thread.id, "w"))
    assert await is_gone(house, thread.id)


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("evicted", [False, True])
async def test_a_deleted_run_is_not_run_again_by_who_repeats_its_submission(
    house: House, archived: bool, evicted: bool
) -> None:
    run = await house.ended((await house.thread()).id)
    if evicted:
        await house.evict()
    await house.changes.delete_run(run)
    if archived:
        await house.archive()
    with pytest.raises(AppError, match="was deleted"):
        await house.store.submit(NewRun(run.id, "w", {"task": "x"}), queued={})
    assert await house.store.run(run.id) is None


class Evicting(ThreadStore):
    """Just when somebody is sure that a thread is in Redis, it leaves."""

    house: House
    left = False

    async def bring_back(self, thread_id: str, run_id: str | None = None) -> bool:
        found = await super().bring_back(thread_id, run_id)
        if not self.left:
            self.left = True
            await self.house.evict()
        return found


@pytest.fixture
def evicting(house: House) -> House:
    house.store.__class__ = Evicting
    house.store.house = house  # type: ignore[attr-defined]
    return house


async def test_a_patch_of_a_thread_that_is_just_evicted_is_applied(evicting: House) -> None:
    thread = await evicting.thread()
    await evicting.archive()
    await evicting.changes.patch_thread(thread, {"name": "N"})
    await evicting.evict()
    found = await evicting.history.thread(thread.id)
    assert found
    assert found.name == "N"


async def test_a_patch_of_a_run_that_is_just_evicted_is_applied(evicting: House) -> None:
    run = await evicting.ended((await evicting.thread()).id)
    await evicting.archive()
    await evicting.changes.patch_run(run, {"labels": {"a": "b"}})
    await evicting.evict()
    found = await evicting.history.run(run.id)
    assert found
    assert found.labels == {"a": "b"}


async def test_a_deletion_of_what_is_just_evicted_leaves_no_large_value(evicting: House) -> None:
    run = await evicting.ended((await evicting.thread()).id, size=100_000)
    await evicting.archive()
    await evicting.changes.delete_run(run)
    assert await evicting.history.run(run.id) is None
    async with evicting.database.connect() as c:
        assert (await c.execute(select(blobs.c.name))).all() == []


async def test_a_patch_of_what_was_deleted_meanwhile_is_refused(house: House) -> None:
    thread = await house.thread()
    await house.changes.delete_thread(thread)
    with pytest.raises(AppError, match="was deleted"):
        await house.changes.patch_thread(thread, {"name": "N"})


async def test_a_patch_whose_answer_was_lost_counts_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    thread = await house.thread()
    call = house.changes._scripts.call

    async def twice(*args: Any) -> Any:
        await call(*args)
        return await call(*args)

    monkeypatch.setattr(house.changes._scripts, "call", twice)
    await house.changes.patch_thread(thread, {"name": "N"}, expected=1)
    found = await house.store.thread(thread.id)
    assert found
    assert (found.name, found.revision) == ("N", 2)


@pytest.mark.parametrize("evicted", [False, True])
async def test_versions_outlive_an_eviction(house: House, evicted: bool) -> None:
    run = await house.ended((await house.thread()).id)
    await house.changes.patch_run(run, {"name": "N"}, expected=1)
    if evicted:
        await house.evict()
    found = await house.history.run(run.id)
    assert found
    assert found.revision == 2
    for stale in (
        house.changes.patch_run(found, {"name": "M"}, expected=1),
        house.changes.delete_run(found, expected=1),
    ):
        with pytest.raises(AppError, match="It was changed meanwhile"):
            await stale
    await house.changes.delete_run(found, expected=2)


@pytest.mark.parametrize("kind", ["run", "thread"])
async def test_a_deletion_whose_answer_was_lost_is_finished(
    house: House, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = await house.thread()
    run = await house.ended(thread.id)
    await house.archive()
    call = house.changes._scripts.call

    async def twice(*args: Any) -> Any:
        await call(*args)
        return await call(*args)

    monkeypatch.setattr(house.changes._scripts, "call", twice)
    if kind == "run":
        await house.changes.delete_run(run)
    else:
        await house.changes.delete_thread(thread)
    assert await house.store.events(thread.id) == []
    assert await house.client.zcard(keys.current_runs("w")) == 0
    assert await house.history.run(run.id) is None
