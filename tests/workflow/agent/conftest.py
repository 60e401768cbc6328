from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from shared.events.outside import Outside
from shared.redis import connect
from tests.workflow.support import outside


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url, timeout_seconds=5, max_connections=60)
    yield client
    await client.aclose()


@pytest.fixture
def out(client: Redis) -> Outside:
    return outside(client)
