from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.config import DatabaseSettings
from tests.gateway.support import Gateway, serving, settings_for
from tests.support.databases import put_database


@pytest.fixture
async def gateway(redis_url: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    put_database(tmp_path)
    async with serving(settings_for(redis_url, tmp_path)) as gateway:
        yield gateway


@pytest.fixture
async def sql_gateway(redis_url: str, tmp_path: Path, database_url: str) -> AsyncIterator[Gateway]:
    """One on SQLite, and one on Postgres."""
    database = DatabaseSettings(url=database_url)  # type: ignore[arg-type]
    async with serving(settings_for(redis_url, tmp_path, database=database)) as gateway:
        yield gateway
