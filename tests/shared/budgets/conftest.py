import pytest
from redis.asyncio import Redis

from shared.budgets.store import Budgets


@pytest.fixture
def budgets(client: Redis) -> Budgets:
    return Budgets(client, patience_seconds=2)
