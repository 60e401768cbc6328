from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from modem.archive import Archiver
from shared.config import ArchiveSettings, DatabaseSettings
from shared.db.engine import Database
from shared.payloads.payloads import Payloads
from shared.threads.archiving import Archiving
from shared.workers.registry import WorkerRegistry
from tests.gateway.house import House
from tests.gateway.support import Gateway, serving, settings_for
from tests.support.databases import put_database

AT_ONCE: dict[str, Any] = {"keep_events_seconds": 0.0, "every_seconds": 1, "retention_days": 0}


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


@pytest.fixture
async def house(client: Redis, redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    settings = settings_for(redis_url, tmp_path, database=DatabaseSettings(url=SecretStr(database_url)))
    database = Database(database_url)
    payloads = Payloads.over(client, settings, patience_seconds=2)
    archiving = Archiving(client, patience_seconds=2)
    archiver, evictor = (
        Archiver(
            ArchiveSettings.model_construct(**AT_ONCE, evict_after_seconds=seconds),
            database,
            payloads,
            archiving,
            WorkerRegistry(client),
        )
        for seconds in (3600, -1)
    )
    async with serving(settings) as gateway:
        yield House(gateway, archiver, evictor)
    await database.close()
