import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.e2e.sources.stack import Http, Stack
from tests.support.databases import PostgresDatabases, put_database


@pytest.fixture(scope="package", params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One over each kind of database, for all scripts together."""
    folder = tmp_path_factory.mktemp(f"sources-{request.param}")
    stack = Stack(folder, _database(request, folder))
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def _database(request: pytest.FixtureRequest, folder: Path) -> dict[str, str]:
    if request.param == "sqlite":
        put_database(folder)
        return {}
    databases: PostgresDatabases = request.getfixturevalue("postgres_databases")
    return {"POSTGRES_DSN": asyncio.run(databases.new()).replace("+asyncpg", "")}


@pytest.fixture(scope="module")
def key(stack: Stack, request: pytest.FixtureRequest) -> str:
    """Of a workspace that only this script uses."""
    slug = request.module.__name__.rpartition(".")[2].replace("_", "-")
    return str(stack.key(stack.workspace(slug)["id"])["key"])


@pytest.fixture
async def http(stack: Stack, key: str) -> AsyncIterator[Http]:
    async with Http(stack, key) as client:
        yield client
