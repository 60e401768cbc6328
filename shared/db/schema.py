"""The database's schema: which one it has, and the way to the one that this code needs."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.engine import Connection

from shared.db.engine import Database
from shared.errors import AppError, ErrorCode

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 7_265_821
"""Postgres' advisory lock that whoever migrates holds; any number that nobody else uses."""


class SchemaState(StrEnum):
    EMPTY = "empty"
    OLDER = "older"
    CURRENT = "current"
    NEWER = "newer"


async def upgrade(database: Database, revision: str = "head") -> None:
    """To the schema of this code, or to `revision`; all of it or nothing. Of two at once, one waits."""
    await _migrate(database, command.upgrade, revision)


async def downgrade(database: Database, revision: str) -> None:
    """`base` is an empty database."""
    await _migrate(database, command.downgrade, revision)


async def schema_state(database: Database) -> SchemaState:
    """Raises AppError UNAVAILABLE."""
    async with database.connect() as connection:
        found = await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())
    scripts = ScriptDirectory.from_config(_config())
    if found is None:
        return SchemaState.EMPTY
    if found == scripts.get_current_head():
        return SchemaState.CURRENT
    known = {script.revision for script in scripts.walk_revisions()}
    return SchemaState.OLDER if found in known else SchemaState.NEWER


async def require_current(database: Database) -> None:
    """Raises AppError INVALID_CONFIG where the schema is not this code's, UNAVAILABLE where nobody answers."""
    match await schema_state(database):
        case SchemaState.EMPTY | SchemaState.OLDER:
            cure = "Migrate it: python -m shared.db upgrade"
        case SchemaState.NEWER:
            cure = "A newer Trunkline migrated it: run that release, or restore a backup from before."
        case SchemaState.CURRENT:
            return
    raise AppError(ErrorCode.INVALID_CONFIG, f"The database's schema is not that of this release. {cure}")


async def _migrate(database: Database, step: Callable[[Config, str], None], revision: str) -> None:
    def migrate(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        config = _config()
        config.attributes["connection"] = connection
        step(config, revision)

    async with database.begin() as connection:
        await connection.run_sync(migrate)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
