"""Clients under load and under cancellation."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.redis import connect

CONNECTIONS = 3


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(f"{redis_url}?client_name=mine", timeout_seconds=5, max_connections=CONNECTIONS)
    yield client
    await client.aclose()


async def count(client: Redis) -> int:
    return int(await client.incr("n"))


async def test_more_calls_than_connections_wait_for_one_and_all_succeed(client: Redis) -> None:
    calls = 50 * CONNECTIONS
    answers = await asyncio.gather(*(count(client) for _ in range(calls)))
    assert sorted(answers) == list(range(1, calls + 1))
    mine = [each for each in await client.client_list() if each["name"] == "mine"]
    assert len(mine) == CONNECTIONS


async def test_a_call_that_gets_no_connection_in_time_fails(redis_url: str) -> None:
    async with connect(redis_url, timeout_seconds=1, max_connections=1) as client:
        async with client.pubsub() as holder:
            await holder.subscribe("channel")
            with pytest.raises(RedisConnectionError):
                await count(client)
        assert await count(client) == 1


async def test_cancelled_calls_leave_their_connections_to_others(client: Redis, redis_client: Redis) -> None:
    for moments in range(60):
        calls = [asyncio.create_task(count(client)) for _ in range(10 * CONNECTIONS)]
        for _ in range(moments):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    already = (await redis_client.info("clients"))["blocked_clients"]
    waiting = [asyncio.create_task(_wait_for_an_item(client)) for _ in range(CONNECTIONS)]
    async with asyncio.timeout(4):
        while (await redis_client.info("clients"))["blocked_clients"] < already + CONNECTIONS:
            await asyncio.sleep(0.01)
    await redis_client.rpush("list", *("x" * CONNECTIONS))
    await asyncio.gather(*waiting)


async def _wait_for_an_item(client: Redis) -> None:
    await client.blpop(["list"], timeout=5)
