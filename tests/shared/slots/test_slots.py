import asyncio
import random
import time

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.keys import thread_keys_of
from shared.slots.slots import PARKED_MS, Entrant, Ring, Slots, entrants
from shared.types import Priority, RunStatus
from tests.shared.runs import Tenant

RING_SECONDS = 5


@pytest.fixture
def slots(client: Redis) -> Slots:
    return Slots(client, 2, ring_seconds=RING_SECONDS)


@pytest.fixture
def _always_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot may be stale as soon as it is taken."""
    monkeypatch.setattr("shared.slots.slots.CHECK_MS", 1)


def names(rings: list[Ring]) -> list[str]:
    return [ring.run_id for ring in rings]


async def ask(client: Redis, slots: Slots, *run_ids: str) -> list[str]:
    runs = [run for run in await entrants(client, run_ids) if run is not None]
    return names(await slots.ask("acme", runs))


async def due_in(client: Redis, run_id: str) -> float:
    """Milliseconds until the sweeper rings for it."""
    at = await client.zscore(thread_keys_of(run_id).rings, run_id)
    assert at is not None
    return float(at) - time.time() * 1000


async def test_runs_get_slots_up_to_the_limit_and_the_rest_is_parked(
    client: Redis, slots: Slots, tenant: Tenant
) -> None:
    first, second, third = [await tenant.pending() for _ in range(3)]
    assert await ask(client, slots, first) == [first]
    assert await ask(client, slots, second) == [second]
    assert await ask(client, slots, third) == []
    assert await ask(client, slots, first) == [first], "it keeps its slot"
    assert await client.zrange(keys.parked("acme"), 0, -1) == [third]


async def test_a_slot_given_back_goes_to_the_oldest_run_of_the_highest_priority(
    client: Redis, slots: Slots, tenant: Tenant
) -> None:
    holders = [await tenant.pending(), await tenant.pending()]
    await ask(client, slots, *holders)
    low, older, younger, high = [
        await tenant.pending(priority=priority) for priority in ("low", "normal", "normal", "high")
    ]
    assert await ask(client, slots, younger, low, high, older) == []
    order = []
    holding = holders[0]
    for _ in range(4):
        [ring] = await slots.free("acme", holding)
        order.append(ring)
        holding = ring.run_id
    assert names(order) == [high, older, younger, low]
    assert [ring.priority for ring in order] == [Priority.HIGH, Priority.NORMAL, Priority.NORMAL, Priority.LOW]


async def test_the_sweeper_rings_late_for_a_parked_run_and_soon_for_one_that_was_let_in(
    client: Redis, slots: Slots, tenant: Tenant
) -> None:
    holders = [await tenant.pending(), await tenant.pending()]
    await ask(client, slots, *holders)
    parked = await tenant.pending()
    await ask(client, slots, parked)
    assert await due_in(client, parked) > PARKED_MS / 2
    await slots.free("acme", holders[0])
    assert await due_in(client, parked) <= RING_SECONDS * 1000


async def test_one_workspace_takes_nothing_from_another(client: Redis, slots: Slots, tenant: Tenant) -> None:
    await ask(client, slots, *[await tenant.pending() for _ in range(20)])
    other = await Tenant(client, "other").pending()
    [run] = await entrants(client, [other])
    assert run is not None
    assert names(await slots.ask("other", [run])) == [other]


@pytest.mark.usefixtures("_always_check")
async def test_a_slot_that_nobody_gave_back_is_found_when_the_workspace_is_full(
    client: Redis, slots: Slots, tenant: Tenant
) -> None:
    lost, gone = await tenant.pending(), await tenant.pending()
    await ask(client, slots, lost, gone)
    await tenant.ended(lost)
    await client.delete(thread_keys_of(gone).run(gone))
    await asyncio.sleep(0.005)  # so that the slots are older than the check looks for
    waiting = [await tenant.pending() for _ in range(3)]
    assert await ask(client, slots, *waiting) == waiting[:2]


async def test_a_run_that_only_ends_waits_for_no_slot_and_takes_none(
    client: Redis, slots: Slots, tenant: Tenant
) -> None:
    holders = [await tenant.pending(), await tenant.pending()]
    await ask(client, slots, *holders)
    ending = await tenant.pending()
    assert await ask(client, slots, ending) == []
    await client.hset(thread_keys_of(ending).run(ending), "cancel", '{"reason": "x"}')
    assert await ask(client, slots, ending) == [ending]
    assert await client.zrange(keys.parked("acme"), 0, -1) == []
    assert set(await client.zrange(keys.slots("acme"), 0, -1)) == set(holders)


async def test_a_run_that_cannot_be_read_keeps_no_other_from_its_slot(
    client: Redis, slots: Slots, tenant: Tenant
) -> None:
    broken, strange, sound = [await tenant.pending() for _ in range(3)]
    await client.hset(thread_keys_of(broken).run(broken), "parameters", "{")
    await client.hset(thread_keys_of(strange).run(strange), "status", "of_tomorrow")
    assert await ask(client, slots, broken, strange, sound) == [strange, sound]


@pytest.mark.usefixtures("_always_check")
async def test_a_slot_is_kept_for_a_run_that_goes_on_though_its_worker_may_be_dead(
    client: Redis, slots: Slots, tenant: Tenant
) -> None:
    running, pending = await tenant.pending(), await tenant.pending()
    await ask(client, slots, running, pending)
    await tenant.running(running)
    await asyncio.sleep(0.005)
    assert await ask(client, slots, await tenant.pending()) == []


async def test_a_slot_that_was_confirmed_since_it_looked_stale_is_kept(
    client: Redis, slots: Slots, tenant: Tenant
) -> None:
    run, other = await tenant.pending(), await tenant.pending()
    await ask(client, slots, run, other)
    seen = str(int(await client.zscore(keys.slots("acme"), run) or 0))
    await asyncio.sleep(0.005)
    await ask(client, slots, run)
    await slots._give_back("acme", [run, seen])
    assert await client.zscore(keys.slots("acme"), run) is not None


async def test_under_any_interleaving_the_limit_holds_and_every_run_gets_its_turn(client: Redis) -> None:
    limit, total = 5, 200
    slots = Slots(client, limit, ring_seconds=RING_SECONDS)
    bell: asyncio.Queue[str] = asyncio.Queue()
    going: set[str] = set()
    done: set[str] = set()
    most = 0

    async def ring(rings: list[Ring]) -> None:
        for ring in rings:
            for _ in range(random.choice([1, 1, 2])):  # messages may be doubled
                bell.put_nowait(ring.run_id)

    async def submit(number: int) -> None:
        await asyncio.sleep(random.uniform(0, 0.2))
        await ring(await slots.ask("acme", [entrant(number)]))

    async def worker() -> None:
        nonlocal most
        while len(done) < total:
            run_id = await bell.get()
            if run_id in done or run_id in going:
                continue
            granted = await slots.ask("acme", [entrant(int(run_id))])
            await ring([other for other in granted if other.run_id != run_id])
            if run_id not in names(granted) or run_id in going | done:  # as a claim would refuse it
                continue
            going.add(run_id)
            most = max(most, len(going))
            await asyncio.sleep(random.uniform(0, 0.005))
            going.discard(run_id)
            done.add(run_id)
            await ring(await slots.free("acme", run_id))

    workers = [asyncio.create_task(worker()) for _ in range(20)]
    async with asyncio.timeout(30):
        await asyncio.gather(*(submit(number) for number in range(total)))
        await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
    for task in workers:
        task.cancel()
    await asyncio.wait(workers)
    assert len(done) == total
    assert 1 < most <= limit


def entrant(number: int) -> Entrant:
    return Entrant(str(number), "acme", RunStatus.PENDING, Priority.NORMAL, number)
