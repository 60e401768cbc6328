"""Links to ports of sandboxes: how long they are good, and how they are ended before."""

import pytest
from redis.asyncio import Redis

from shared import keys, links
from shared.ids import new_thread_id

PORT = 8080


@pytest.fixture
def sandbox() -> str:
    return new_thread_id()


async def test_a_shorter_public_time_does_not_cut_a_longer_one_short(redis_client: Redis, sandbox: str) -> None:
    await links.issue(redis_client, sandbox, PORT, seconds=600, public=True)
    await links.issue(redis_client, sandbox, PORT, seconds=60, public=True)
    assert 590 < await links.public_seconds_left(redis_client, sandbox, PORT) <= 600
    await links.issue(redis_client, sandbox, PORT, seconds=900, public=True)
    assert 890 < await links.public_seconds_left(redis_client, sandbox, PORT) <= 900


async def test_all_links_of_a_port_end_and_those_of_others_stay(redis_client: Redis, sandbox: str) -> None:
    gone = [await links.issue(redis_client, sandbox, PORT, seconds=60, public=public) for public in (False, True)]
    kept = await links.issue(redis_client, sandbox, PORT + 1, seconds=60, public=True)
    foreign = await links.issue(redis_client, new_thread_id(), PORT, seconds=60)
    await links.revoke(redis_client, sandbox, PORT)
    assert [await links.seconds_left(redis_client, sandbox, PORT, link.ticket) for link in gone] == [0, 0]
    assert await links.public_seconds_left(redis_client, sandbox, PORT) == 0
    for link in (kept, foreign):
        assert await links.seconds_left(redis_client, link.sandbox, link.port, link.ticket) > 0
    assert await links.public_seconds_left(redis_client, sandbox, PORT + 1) > 0


async def test_a_link_that_is_made_after_others_were_ended_is_good_for_its_whole_time(
    redis_client: Redis, sandbox: str
) -> None:
    old = await links.issue(redis_client, sandbox, PORT, seconds=600)
    await links.revoke(redis_client, sandbox, PORT)
    new = await links.issue(redis_client, sandbox, PORT, seconds=links.MAX_SECONDS)
    mark = await redis_client.ttl(keys.port_links(sandbox, PORT))
    assert mark >= await redis_client.ttl(keys.port_link(links._digest(new.ticket)))
    assert await links.seconds_left(redis_client, sandbox, PORT, new.ticket) > 0
    assert await links.seconds_left(redis_client, sandbox, PORT, old.ticket) == 0
