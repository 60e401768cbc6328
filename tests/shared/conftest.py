import pytest
from redis.asyncio import Redis

from tests.shared.runs import Tenant


@pytest.fixture
def tenant(client: Redis) -> Tenant:
    return Tenant(client)
