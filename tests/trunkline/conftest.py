from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.support import KEY, Gateway, serving, settings_for
from tests.trunkline.worker import Worker
from trunkline import AsyncTrunkline


@pytest.fixture
async def gateway(redis_url: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with serving(settings_for(redis_url, tmp_path)) as gateway:
        yield gateway


@pytest.fixture
async def trunkline(gateway: Gateway) -> AsyncIterator[AsyncTrunkline]:
    async with AsyncTrunkline(f"http://127.0.0.1:{gateway.port}", KEY) as client:
        yield client


@pytest.fixture
def worker(gateway: Gateway) -> Worker:
    return Worker(gateway)
