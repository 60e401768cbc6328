import pytest
from redis.asyncio import Redis

from shared.events.outside import Outside
from tests.workflow.support import outside


@pytest.fixture
def out(client: Redis) -> Outside:
    return outside(client)
