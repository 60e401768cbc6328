import asyncio
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from shared.config import DatabaseSettings, Settings
from shared.db.engine import Database
from shared.db.schema import MIGRATIONS, SchemaState, check_at_start, migrate_to, require_current, schema_state, upgrade
from shared.db.tables import metadata
from shared.db.tables.tenants import keys, projects, workspaces
from shared.errors import AppError, ErrorCode
from tests.support.ports import free_port
from tests.support.postgres import Postgres


async def test_the_migrations_make_the_tables_that_the_code_knows(database: Database) -> None:
    async with database.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync, opts={"compare_type": True}), metadata)
        )
    assert differences == []


async def test_an_empty_database_is_refused_until_it_is_migrated(empty_database: Database) -> None:
    assert await schema_state(empty_database) is SchemaState.EMPTY
    with pytest.raises(AppError, match=r"python -m shared\.db upgrade") as refused:
        await require_current(empty_database)
    assert refused.value.code is ErrorCode.INVALID_CONFIG
    await upgrade(empty_database)
    await require_current(empty_database)


async def test_a_newer_schema_is_refused(database: Database) -> None:
    async with database.begin() as c:
        await c.execute(text("UPDATE alembic_version SET version_num = 'from the future'"))
    for step in (require_current, upgrade):
        with pytest.raises(AppError, match="newer release"):
            await step(database)


async def test_of_two_that_migrate_at_once_one_waits_for_the_other(empty_database: Database) -> None:
    other = Database(empty_database.engine.url.render_as_string(hide_password=False))
    await asyncio.gather(upgrade(empty_database), upgrade(other))
    assert await schema_state(other) is SchemaState.CURRENT
    await other.close()


async def test_down_to_nothing_and_up_again(database: Database) -> None:
    await migrate_to(database, "base")
    assert await schema_state(database) is SchemaState.EMPTY
    await upgrade(database)
    await require_current(database)


async def test_a_process_starts_without_its_database_but_not_with_a_wrong_one(tmp_path: Path) -> None:
    away = DatabaseSettings(url=SecretStr(f"postgresql+asyncpg://nobody@127.0.0.1:{free_port()}/none"))
    await check_at_start(Settings(database=away))
    with pytest.raises(AppError, match="has none yet"):
        await check_at_start(Settings(data=tmp_path))


async def test_every_revision_can_be_left_and_reached_with_data_in_it(database: Database) -> None:
    revisions = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]
    for revision in [*revisions, *reversed(revisions)]:
        await migrate_to(database, revision)
        async with database.connect() as c:
            assert (await c.execute(workspaces.select())).one().id == "default"
    await require_current(database)


async def test_a_key_cannot_be_of_another_workspaces_project(database: Database) -> None:
    now = datetime.now(UTC)
    changes = {"version": 1, "created_at": now, "updated_at": now}
    async with database.begin() as c:
        await c.execute(workspaces.insert().values(id="w2", slug="w2", name="W2", metadata={}, **changes))
        await c.execute(projects.insert().values(id="p", workspace="w2", name="P", metadata={}, **changes))
    key = {"id": "k", "name": "k", "prefix": "tl_", "digest": "d", "scopes": [], "created_at": now, "project": "p"}
    with pytest.raises(IntegrityError):
        async with database.begin() as c:
            await c.execute(keys.insert().values(workspace="default", **key))
    async with database.begin() as c:
        await c.execute(keys.insert().values(workspace="w2", **key))


async def test_times_are_utc_whatever_zone_they_came_in(database: Database) -> None:
    noon = datetime(2026, 11, 21, 12, tzinfo=timezone(timedelta(hours=2)))
    async with database.begin() as c:
        await c.execute(workspaces.update().values(updated_at=noon))
    async with database.connect() as c:
        found = (await c.execute(workspaces.select())).one()
    assert found.updated_at == noon
    assert found.updated_at.utcoffset() == timedelta(0)


async def test_a_server_that_refuses_is_unavailable(postgres: Postgres) -> None:
    database = Database(postgres.url("nothing"))
    with pytest.raises(AppError) as refused:
        await schema_state(database)
    assert refused.value.code is ErrorCode.UNAVAILABLE
    await database.close()


async def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    async def fail() -> None:
        async with database.begin() as c:
            await c.execute(workspaces.update().values(name="changed"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.connect() as c:
        assert (await c.execute(workspaces.select())).one().name == "Default"


async def test_writers_wait_for_one_another(database: Database) -> None:
    async def rise() -> None:
        async with database.begin() as c:
            version = (await c.execute(workspaces.select().with_for_update())).one().version
            await c.execute(workspaces.update().values(version=version + 1))

    await asyncio.gather(*(rise() for _ in range(20)))
    async with database.connect() as c:
        assert (await c.execute(workspaces.select())).one().version == 21
