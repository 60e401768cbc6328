from redis.asyncio import Redis

from shared import tickets


async def test_a_ticket_is_good_once(redis_client: Redis) -> None:
    ticket = await tickets.issue(redis_client, "w", seconds=60)
    assert await tickets.redeem(redis_client, ticket) == "w"
    assert await tickets.redeem(redis_client, ticket) is None


async def test_a_ticket_that_was_never_issued_is_good_for_nothing(redis_client: Redis) -> None:
    assert await tickets.redeem(redis_client, "never issued") is None


async def test_redis_keeps_a_hash_of_the_ticket_and_only_for_a_time(redis_client: Redis) -> None:
    ticket = await tickets.issue(redis_client, "w", seconds=60)
    [key] = await redis_client.keys("*")
    assert ticket.encode() not in key
    assert 0 < await redis_client.ttl(key) <= 60
