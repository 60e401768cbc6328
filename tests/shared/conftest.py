from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from shared.redis import connect
from tests.shared.runs import Tenant


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    """As the product connects."""
    client = connect(redis_url, timeout_seconds=5, max_connections=50)
    yield client
    await client.aclose()


@pytest.fixture
def tenant(client: Redis) -> Tenant:
    return Tenant(client)
