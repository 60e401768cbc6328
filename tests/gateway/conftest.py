from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.support import Gateway, serving, settings_for
from tests.support.databases import SqliteDatabases


@pytest.fixture
async def gateway(redis_url: str, tmp_path: Path, sqlite_databases: SqliteDatabases) -> AsyncIterator[Gateway]:
    await sqlite_databases.put(tmp_path / "trunkline.db")
    async with serving(settings_for(redis_url, tmp_path)) as gateway:
        yield gateway
