"""Which worker looks for orphan machines, and what Redis tells it of threads."""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial

import orjson
import pytest
from redis.asyncio import Redis

from modem.orphans import OrphanSweeper
from shared import keys
from shared.config import SandboxSettings
from shared.db import archive
from shared.db.engine import Database
from shared.ids import new_thread_id
from shared.install import Install, find_install
from shared.keys import ThreadKeys
from shared.threads.archiving import Chunk, RecordCopy
from shared.workers.registry import WorkerRegistry
from tests.workflow.sandbox.support import Host, new_box
from workflow.sandbox import orphans
from workflow.sandbox.local import LocalProvider
from workflow.sandbox.machine import Found, Machine
from workflow.sandbox.orphans import sweep_machines, sweep_workspaces

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


@pytest.fixture
async def redis(client: Redis) -> str:
    """Its name."""
    return (await find_install(SandboxSettings(), client)).redis


SweeperOf = Callable[[Machines], OrphanSweeper]


@pytest.fixture
def sweeper_of(client: Redis, database: Database) -> SweeperOf:
    return lambda machines: OrphanSweeper(partial(sweep_machines, machines), client, database, Registry(client))


async def test_one_worker_removes_the_machines_of_threads_that_redis_no_longer_has(
    client: Redis, redis: str, sweeper_of: SweeperOf
) -> None:
    there, gone, renewed = new_thread_id(), new_thread_id(), new_thread_id()
    await client.hset(ThreadKeys(there).metadata, "created_at", "1")
    ref = orjson.dumps({"id": "new"})
    await client.hset(ThreadKeys(renewed).metadata, mapping={"created_at": "1", "sandbox": ref})
    found = {"kept": there, "orphan": gone, "old": renewed, "new": renewed}
    machines = Machines([Found(machine, thread, LONG_AGO, redis) for machine, thread in found.items()])
    sweeper = sweeper_of(machines)
    assert await sweeper.tick("second") == await sweeper.tick(None) == []
    assert sorted(await sweeper.tick("first")) == ["old", "orphan"]
    assert set(machines.found) == {"kept", "new"}


async def test_machines_made_with_another_redis_are_left_alone(
    redis: str, caplog: pytest.LogCaptureFixture, sweeper_of: SweeperOf
) -> None:
    strange = [Found(f"m{number}", new_thread_id(), LONG_AGO, "another") for number in range(3)]
    machines = Machines([*strange, Found("orphan", new_thread_id(), LONG_AGO, redis)])
    assert await sweeper_of(machines).tick("first") == ["orphan"]
    assert set(machines.found) == {"m0", "m1", "m2"}
    assert "remove them by hand" in caplog.text


@pytest.mark.usefixtures("redis")
async def test_a_redis_that_was_emptied_is_not_believed(
    client: Redis, caplog: pytest.LogCaptureFixture, sweeper_of: SweeperOf
) -> None:
    machines = Machines([Found("m", new_thread_id(), LONG_AGO, str(await client.getdel(keys.INSTALL)))])
    assert await sweeper_of(machines).tick("first") == []
    assert set(machines.found) == {"m"}
    assert "does not know its own name" in caplog.text


async def test_the_workspaces_of_threads_that_are_gone_are_removed(
    client: Redis, database: Database, redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "UNUSED_SECONDS", 0)
    with Host("root" if os.geteuid() == 0 else "user") as host:
        provider, strangers = LocalProvider(host.settings, redis), LocalProvider(host.settings, "another")
        boxes = {name: await new_box(provider) for name in ("there", "gone", "used")}
        boxes["strange"] = await new_box(strangers)
        for box in boxes.values():
            await box.run("mkdir -p a/b; echo x >a/b/c; chmod 0 a/b a")
        made = {name: box.run_id.partition(".")[0] for name, box in boxes.items()}
        host.stop()
        host.start()
        await boxes["used"].run("true")
        await client.hset(ThreadKeys(made["there"]).metadata, "created_at", "1")
        sweeper = OrphanSweeper(partial(sweep_workspaces, provider), client, database, Registry(client), by_all=True)
        assert await sweeper.tick("second") == [made["gone"]]
        left = {path.name for path in host.settings.workspaces.iterdir()}
        assert {made[name] for name in ("there", "used", "strange")} <= left
        assert not list(host.settings.workspaces.glob(f"**/{made['gone']}*"))
        await provider.close()
        await strangers.close()


async def test_all_who_share_a_redis_have_one_name(client: Redis) -> None:
    settings = SandboxSettings(provider="docker")
    install = await find_install(settings, client)
    assert install == await find_install(settings, client)
    assert install.name == install.redis != ""


async def test_a_name_of_the_settings_is_beside_that_of_the_redis(client: Redis, redis: str) -> None:
    assert await find_install(SandboxSettings(install="ours"), client) == Install("ours", redis)


async def test_the_machine_of_an_evicted_thread_is_kept(database: Database, redis: str, sweeper_of: SweeperOf) -> None:
    evicted, gone = new_thread_id(), new_thread_id()
    record = {"workspace": "w", "status": "active", "created_at": "1", "seq": "1", "last_id": "1-0"}
    ref = orjson.dumps({"id": "new"}).decode()
    async with database.begin() as c:
        await archive.write(c, Chunk(threads=[RecordCopy(evicted, {**record, "sandbox": ref})]))
    found = {"old": evicted, "new": evicted, "orphan": gone}
    machines = Machines([Found(machine, thread, LONG_AGO, redis) for machine, thread in found.items()])
    await sweeper_of(machines).tick("first")
    assert set(machines.found) == {"new"}
