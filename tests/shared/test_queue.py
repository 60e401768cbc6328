import json
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.queue import EXECUTE_RUN, QUEUE, QUEUES, RunQueue, celery_app, queue_lengths
from shared.redis import connect
from shared.slots.slots import Slots
from shared.types import Priority
from tests.shared.runs import Tenant
from tests.support.ports import free_port

LIMIT = 2


@pytest.fixture
def queue(redis_url: str, client: Redis) -> Iterator[RunQueue]:
    queue = RunQueue(celery_app(redis_url), client)
    yield queue
    queue.close()


@pytest.fixture
def limited(redis_url: str, client: Redis) -> Iterator[RunQueue]:
    """Two runs of a workspace at the same time."""
    queue = RunQueue(celery_app(redis_url), client, Slots(client, LIMIT, ring_seconds=5))
    yield queue
    queue.close()


@pytest.fixture
def by_agent(redis_url: str, client: Redis) -> Iterator[RunQueue]:
    """One run of an agent at the same time, and two of a workspace."""
    slots, agent_slots = Slots(client, LIMIT, ring_seconds=5), Slots(client, 1, ring_seconds=5)
    queue = RunQueue(celery_app(redis_url), client, slots, agent_slots=agent_slots)
    yield queue
    queue.close()


@pytest.fixture
async def away() -> AsyncIterator[Redis]:
    """A client of a Redis that is not there."""
    async with connect(f"redis://127.0.0.1:{free_port()}/0", timeout_seconds=1, max_connections=2) as client:
        yield client


async def rung(client: Redis, priority: Priority = Priority.NORMAL) -> list[str]:
    """The messages in a queue, taken out, oldest first."""
    messages = await client.lrange(QUEUES[priority], 0, -1)
    await client.delete(QUEUES[priority])
    return [json.loads(message)["headers"]["argsrepr"][2:-2] for message in reversed(messages)]


async def test_ringing_sends_the_runs_id_and_nothing_else(queue: RunQueue, client: Redis, tenant: Tenant) -> None:
    run_id = await tenant.pending()
    await queue.ring(run_id)
    await queue.ring(None)
    [message] = await client.lrange(QUEUE, 0, -1)
    assert json.loads(message)["headers"]["task"] == EXECUTE_RUN
    assert json.loads(message)["headers"]["argsrepr"] == f"['{run_id}']"


async def test_a_run_is_rung_for_in_the_queue_of_its_priority(queue: RunQueue, client: Redis, tenant: Tenant) -> None:
    runs = {priority: await tenant.pending(priority=priority) for priority in Priority}
    for run_id in runs.values():
        await queue.ring(run_id)
    assert await queue_lengths(client) == dict.fromkeys(Priority, 1)
    assert {priority: await rung(client, priority) for priority in Priority} == {p: [run] for p, run in runs.items()}


async def test_a_priority_that_there_is_not_counts_as_normal(queue: RunQueue, client: Redis, tenant: Tenant) -> None:
    run_id = await tenant.pending(priority="urgent")
    await queue.ring(run_id)
    assert await rung(client) == [run_id]


async def test_nobody_reads_the_record_of_a_run_whose_priority_is_known(queue: RunQueue, client: Redis) -> None:
    await queue.ring("no-run", priority=Priority.HIGH)
    await queue.ring("no-run")
    assert await rung(client, Priority.HIGH) == ["no-run"]
    assert await rung(client) == []


async def test_runs_are_rung_for_again_only_in_the_queues_that_are_asked_for(
    queue: RunQueue, client: Redis, tenant: Tenant
) -> None:
    high, low = await tenant.pending(priority="high"), await tenant.pending(priority="low")
    await queue.ring_again([high, low], [Priority.HIGH, Priority.NORMAL])
    assert await rung(client, Priority.HIGH) == [high]
    assert await rung(client, Priority.LOW) == []


async def test_a_full_workspaces_run_is_parked_and_rung_for_when_another_has_ended(
    limited: RunQueue, client: Redis, tenant: Tenant
) -> None:
    first, second, parked = [await tenant.pending() for _ in range(3)]
    for run_id in (first, second, parked):
        await limited.ring(run_id, priority=Priority.NORMAL)
    assert await rung(client) == [first, second]
    assert await limited.admit(first)
    assert not await limited.admit(parked)
    await tenant.ended(first)
    await limited.leave(first, patience_seconds=1)
    assert await rung(client) == [parked]
    assert await limited.admit(parked)


async def test_a_busy_agents_run_waits_for_that_agent_and_holds_nobody_elses_up(
    by_agent: RunQueue, client: Redis, tenant: Tenant
) -> None:
    first, second, other, without = [await tenant.pending(agent) for agent in ("a", "a", "b", None)]
    for run_id in (first, second, other, without):
        await by_agent.ring(run_id)
    assert await rung(client) == [first, other]  # and `without` waits for its workspace
    assert not await by_agent.admit(second)
    await tenant.ended(first)
    await by_agent.leave(first, patience_seconds=1)
    assert await rung(client) == [without]
    await tenant.ended(other)
    await by_agent.leave(other, patience_seconds=1)
    assert await rung(client) == [second]
    assert await by_agent.admit(second)


async def test_a_run_of_an_agent_that_waits_for_its_workspace_keeps_its_agents_slot(
    by_agent: RunQueue, client: Redis, tenant: Tenant
) -> None:
    runs = [await tenant.pending() for _ in range(LIMIT)]
    mine, next_one = await tenant.pending("a"), await tenant.pending("a")
    for run_id in (*runs, mine, next_one):
        await by_agent.ring(run_id)
    for run_id in runs:
        await tenant.ended(run_id)
        await by_agent.leave(run_id, patience_seconds=1)
    assert await rung(client) == [*runs, mine]
    await tenant.ended(mine)
    await by_agent.leave(mine, patience_seconds=1)
    assert await rung(client) == [next_one]


async def test_a_run_that_goes_on_elsewhere_keeps_its_slot(limited: RunQueue, client: Redis, tenant: Tenant) -> None:
    drained, held = await tenant.pending(), await tenant.pending()
    for run_id in (drained, held, await tenant.pending()):
        await limited.ring(run_id)
    await (await tenant.running(drained)).give_back("drain")
    await tenant.running(held)
    for run_id in (drained, held):
        await limited.leave(run_id, patience_seconds=1)
    assert await rung(client) == [drained, held]
    assert await client.zcard(keys.slots("acme")) == LIMIT


async def test_a_late_message_of_an_ended_run_lets_the_next_one_in(
    limited: RunQueue, client: Redis, tenant: Tenant
) -> None:
    canceled, other, parked = [await tenant.pending() for _ in range(3)]
    for run_id in (canceled, other, parked):
        await limited.ring(run_id)
    await tenant.store.cancel(canceled, reason="by test")
    assert not await limited.admit(canceled)
    assert await rung(client) == [canceled, other, parked]


async def test_a_doubled_message_of_a_running_run_changes_nothing(
    limited: RunQueue, client: Redis, tenant: Tenant
) -> None:
    run_id = await tenant.pending()
    await limited.ring(run_id)
    await tenant.running(run_id)
    assert not await limited.admit(run_id)
    assert await client.zrange(keys.slots("acme"), 0, -1) == [run_id]


async def test_without_a_limit_a_worker_may_claim_without_asking(redis_url: str, away: Redis, tenant: Tenant) -> None:
    queue = RunQueue(celery_app(redis_url), away)
    run_id = await tenant.pending()
    assert await queue.admit(run_id)
    await queue.leave(run_id, patience_seconds=None)
    queue.close()


async def test_warming_up_sends_nothing(queue: RunQueue, client: Redis) -> None:
    await queue.warm_up()
    assert sum((await queue_lengths(client)).values()) == 0


async def test_a_broker_that_is_away_raises_nothing(
    client: Redis, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    queue = RunQueue(celery_app(f"redis://127.0.0.1:{free_port()}/0"), client)
    await queue.warm_up()
    run_id = await tenant.pending()
    await queue.ring(run_id)
    await queue.ring_again([run_id], tuple(Priority))
    queue.close()
    assert caplog.text.count("the sweeper will") == 2


async def test_a_redis_that_is_away_raises_nothing(
    redis_url: str, away: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.queue.RING_SECONDS", 0.1)
    queue = RunQueue(celery_app(redis_url), away)
    await queue.ring("a-run")
    queue.close()
    assert "a-run" in caplog.text
