from collections.abc import AsyncIterator

import pytest

from shared.redis import connect
from shared.threads.store import ThreadStore


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[ThreadStore]:
    client = connect(redis_url, timeout_seconds=5, max_connections=50)
    yield ThreadStore(client, ring_seconds=5, patience_seconds=2)
    await client.aclose()
