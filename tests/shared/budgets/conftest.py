from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from shared.budgets.store import Budgets
from shared.redis import connect


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url, timeout_seconds=5, max_connections=60)
    yield client
    await client.aclose()


@pytest.fixture
def budgets(client: Redis) -> Budgets:
    return Budgets(client, patience_seconds=2)
