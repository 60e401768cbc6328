"""Which worker looks for orphan machines, and what Redis tells it of threads."""

import time
from collections.abc import Sequence

import orjson
import pytest
from redis.asyncio import Redis

from modem.orphans import OrphanSweeper
from shared.config import SandboxSettings
from shared.db import archive
from shared.db.engine import Database
from shared.ids import new_thread_id
from shared.install import install_id
from shared.keys import ThreadKeys
from shared.threads.archiving import Chunk, RecordCopy
from shared.workers.registry import WorkerRegistry
from workflow.sandbox.machine import Found, Machine

LONG_AGO = time.time() - 3600


class Machines:
    """A cloud of which only the list and the removal are asked for."""

    name = "test"
    image_hint = ""
    extend_seconds = 60.0

    def __init__(self, found: Sequence[Found]) -> None:
        self.found = {each.machine_id: each for each in found}

    async def create(self, thread_id: str, instead_of: str | None) -> Machine:
        raise AssertionError("nothing is made here")

    async def connect(self, machine_id: str) -> Machine:
        raise AssertionError("nothing is used here")

    async def find(self, thread_id: str | None = None) -> Sequence[Found]:
        return list(self.found.values())

    async def remove(self, machine_id: str) -> None:
        del self.found[machine_id]

    async def close(self) -> None: ...


class Registry(WorkerRegistry):
    async def names(self) -> list[str]:
        return ["first", "second"]


async def test_one_worker_removes_the_machines_of_threads_that_redis_no_longer_has(
    client: Redis, database: Database
) -> None:
    there, gone, renewed = new_thread_id(), new_thread_id(), new_thread_id()
    await client.hset(ThreadKeys(there).metadata, "created_at", "1")
    ref = orjson.dumps({"id": "new"})
    await client.hset(ThreadKeys(renewed).metadata, mapping={"created_at": "1", "sandbox": ref})
    found = {"kept": there, "orphan": gone, "old": renewed, "new": renewed}
    machines = Machines([Found(machine, thread, LONG_AGO) for machine, thread in found.items()])
    sweeper = OrphanSweeper(machines, client, database, Registry(client))
    assert await sweeper.tick("second") == await sweeper.tick(None) == []
    assert sorted(await sweeper.tick("first")) == ["old", "orphan"]
    assert set(machines.found) == {"kept", "new"}


@pytest.mark.parametrize(("known", "unknown"), [(0, 1), (0, 3), (1, 2)])
async def test_a_redis_that_lacks_most_threads_is_not_believed(
    client: Redis, database: Database, caplog: pytest.LogCaptureFixture, known: int, unknown: int
) -> None:
    threads = [new_thread_id() for _ in range(known + unknown)]
    for thread in threads[:known]:
        await client.hset(ThreadKeys(thread).metadata, "created_at", "1")
    machines = Machines([Found(f"m{number}", thread, LONG_AGO) for number, thread in enumerate(threads)])
    assert await OrphanSweeper(machines, client, database, Registry(client)).tick("first") == []
    assert len(machines.found) == known + unknown
    assert "remove them by hand" in caplog.text


async def test_of_two_machines_one_may_be_an_orphan(client: Redis, database: Database) -> None:
    there, gone = new_thread_id(), new_thread_id()
    await client.hset(ThreadKeys(there).metadata, "created_at", "1")
    machines = Machines([Found("kept", there, LONG_AGO), Found("orphan", gone, LONG_AGO)])
    assert await OrphanSweeper(machines, client, database, Registry(client)).tick("first") == ["orphan"]


async def test_all_who_share_a_redis_have_one_name(client: Redis) -> None:
    settings = SandboxSettings(provider="docker")
    assert await install_id(settings, client) == await install_id(settings, client) != ""


async def test_the_machine_of_an_evicted_thread_is_kept(client: Redis, database: Database) -> None:
    evicted, gone = new_thread_id(), new_thread_id()
    record = {"workspace": "w", "status": "active", "created_at": "1", "seq": "1", "last_id": "1-0"}
    ref = orjson.dumps({"id": "new"}).decode()
    async with database.begin() as c:
        await archive.write(c, Chunk(threads=[RecordCopy(evicted, {**record, "sandbox": ref})]))
    found = {"old": evicted, "new": evicted, "orphan": gone}
    machines = Machines([Found(machine, thread, LONG_AGO) for machine, thread in found.items()])
    await OrphanSweeper(machines, client, database, Registry(client)).tick("first")
    assert set(machines.found) == {"new"}
