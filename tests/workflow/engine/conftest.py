from collections.abc import AsyncIterator

import pytest

from shared.redis import connect
from tests.workflow.fleet import Fleet


@pytest.fixture
async def fleet(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    """Given True as its parameter, each of its attempts ends with the first step that it has finished."""
    client = connect(redis_url, timeout_seconds=5, max_connections=50)
    yield Fleet(client, parks=getattr(request, "param", False))
    await client.aclose()
