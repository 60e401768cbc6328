from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.db.engine import Database
from tests.support.databases import PostgresDatabases, sqlite_url


@pytest.fixture(params=["sqlite", "postgres"])
async def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """One without any tables."""
    if request.param == "sqlite":
        url = sqlite_url(tmp_path / "empty.db")
    else:
        databases: PostgresDatabases = request.getfixturevalue("postgres_databases")
        url = await databases.new_empty()
    database = Database(url)
    yield database
    await database.close()
