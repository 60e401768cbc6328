"""Queries that grow with the archive are answered from an index: SQLite says so, Postgres has the same ones."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Delete, Select, delete, select
from sqlalchemy.dialects import sqlite

from shared.db.engine import Database
from shared.db.tables.archive import runs, threads
from shared.db.tables.tenants import audit
from tests.support.databases import put_database, sqlite_url

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    put_database(tmp_path)
    database = Database(sqlite_url(tmp_path / "trunkline.db"))
    yield database
    await database.close()


def _newest(column: str) -> Select[tuple[str]]:
    wanted = select(runs.c.id).where(runs.c.workspace == "w", runs.c[column] == "x")
    return wanted.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(50)


@pytest.mark.parametrize("column", ["project", "status", "task_id", "user_uuid"])
async def test_the_newest_runs_of_a_filter_are_neither_looked_for_nor_sorted(database: Database, column: str) -> None:
    plan = await _plan(database, _newest(column))
    assert plan == [f"SEARCH runs USING COVERING INDEX ix_runs_workspace_{column} (workspace=? AND {column}=?)"]


@pytest.mark.parametrize(
    "statement",
    [
        delete(runs).where(runs.c.deleted_at < LONG_AGO),
        delete(threads).where(threads.c.deleted_at < LONG_AGO),
        delete(audit).where(audit.c.at < LONG_AGO),
    ],
)
async def test_what_is_forgotten_is_found_without_reading_the_rest(database: Database, statement: Delete) -> None:
    assert all(step.startswith("SEARCH") for step in await _plan(database, statement))


async def _plan(database: Database, statement: Select[tuple[str]] | Delete) -> list[str]:
    text = statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    async with database.connect() as c:
        return [row.detail for row in await c.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
