"""Which workers there are, by leases in Redis' own time."""

import pytest
from redis.asyncio import Redis

from shared import keys, workers
from shared.ids import slot_of
from shared.scripts import source
from shared.workers.registry import WorkerRegistry

LEASE_MS = 60_000


@pytest.fixture
def registry(client: Redis) -> WorkerRegistry:
    return WorkerRegistry(client)


async def renew(client: Redis, name: str, lease_ms: int = LEASE_MS, *more: str) -> int:
    """As a worker's lease does it."""
    script = client.register_script(source(workers.__name__, "renew"))
    return int(await script(keys=[keys.WORKERS], args=[name, lease_ms, *more]))


async def register(client: Redis, name: str, lease_ms: int = LEASE_MS) -> None:
    await client.hset(keys.worker(name), "host", "h")
    await client.expire(keys.worker(name), 100)
    await renew(client, name, lease_ms, "new")


async def test_a_worker_whose_lease_has_ended_is_not_alive_though_nobody_has_buried_it(
    client: Redis, registry: WorkerRegistry
) -> None:
    await register(client, "b-1")
    await register(client, "a-1")
    await register(client, "c-1", lease_ms=-1)
    assert await registry.alive() == ["a-1", "b-1"]
    assert await registry.names() == ["a-1", "b-1", "c-1"]


async def test_a_lease_that_had_ended_is_renewed_as_long_as_nobody_has_buried_its_worker(
    client: Redis, registry: WorkerRegistry
) -> None:
    await register(client, "a-1", lease_ms=-1)
    assert await renew(client, "a-1") == 1
    assert await registry.alive() == ["a-1"]


async def test_the_buried_stay_dead(client: Redis, registry: WorkerRegistry) -> None:
    await register(client, "a-1", lease_ms=-1)
    await register(client, "b-1")
    assert await registry.bury() == ["a-1"]
    assert await renew(client, "a-1") == 0
    assert await registry.names() == ["b-1"]


async def test_a_card_lasts_as_long_as_its_worker_and_is_buried_with_it(
    client: Redis, registry: WorkerRegistry
) -> None:
    await register(client, "a-1")
    assert await client.ttl(keys.worker("a-1")) == -1, "it never expires"
    await renew(client, "a-1", -1)
    await registry.bury()
    assert await client.exists(keys.worker("a-1")) == 0


def test_all_keys_of_workers_share_a_slot_so_that_one_script_may_use_them() -> None:
    assert slot_of(keys.WORKERS) == slot_of(keys.worker("a-1").partition("{")[2].partition("}")[0])
