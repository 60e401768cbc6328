"""The database's schema: which one it has, and the way to the one that this code needs."""

import logging
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.engine import Connection

from shared.config import Settings
from shared.db.engine import Database
from shared.errors import AppError, ErrorCode

log = logging.getLogger("trunkline.db")

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 7_265_821
"""Postgres' advisory lock that whoever migrates holds; any number that nobody else uses."""


class SchemaState(StrEnum):
    EMPTY = "empty"
    OLDER = "older"
    CURRENT = "current"
    NEWER = "newer"


async def upgrade(database: Database) -> None:
    """To the schema of this code; all of it or nothing. Of two at once, one waits.

    Raises AppError INVALID_CONFIG where the schema is newer, UNAVAILABLE.
    """

    def to_head(connection: Connection) -> None:
        if (state := _state(connection)) is SchemaState.NEWER:
            raise _refused(state)
        if state is not SchemaState.CURRENT:
            command.upgrade(_config(connection), "head")

    await _locked(database, to_head)


async def migrate_to(database: Database, revision: str) -> None:
    """Up or down, to a revision or to `base`: what only newer schemas keep is lost."""

    def migrate(connection: Connection) -> None:
        scripts = _scripts()
        current = MigrationContext.configure(connection).get_current_revision()
        older = [script.revision for script in scripts.walk_revisions("base", current)] if current else []
        step = command.downgrade if revision == "base" or revision in older else command.upgrade
        step(_config(connection), revision)

    await _locked(database, migrate)


async def schema_state(database: Database) -> SchemaState:
    """Raises AppError UNAVAILABLE."""
    async with database.connect() as connection:
        return await connection.run_sync(_state)


async def require_current(database: Database) -> None:
    """Raises AppError INVALID_CONFIG where the schema is not this code's, UNAVAILABLE where nobody answers."""
    state = await schema_state(database)
    if state is not SchemaState.CURRENT:
        raise _refused(state)


async def check_at_start(settings: Settings) -> None:
    """Of a process, which a database that is away does not hold up: it is asked again when it is needed.

    Raises AppError INVALID_CONFIG.
    """
    database = Database.from_settings(settings)
    try:
        await require_current(database)
    except AppError as error:
        if error.code is not ErrorCode.UNAVAILABLE:
            raise
        log.warning("the SQL database does not answer, and the start goes on without it: %s", error.__cause__)
    finally:
        await database.close()


def _refused(state: SchemaState) -> AppError:
    cures = {
        SchemaState.EMPTY: "It has none yet. Make it: python -m shared.db upgrade",
        SchemaState.OLDER: "It is an older release's. Migrate it: python -m shared.db upgrade",
        SchemaState.NEWER: "A newer release migrated it: run that one, or restore a backup from before.",
    }
    return AppError(ErrorCode.INVALID_CONFIG, f"The SQL database has not this release's schema. {cures[state]}")


async def _locked(database: Database, work: Callable[[Connection], None]) -> None:
    def locked(connection: Connection) -> None:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        work(connection)

    async with database.begin() as connection:
        await connection.run_sync(locked)


def _state(connection: Connection) -> SchemaState:
    found = MigrationContext.configure(connection).get_current_revision()
    scripts = _scripts()
    if found is None:
        return SchemaState.EMPTY
    if found == scripts.get_current_head():
        return SchemaState.CURRENT
    known = {script.revision for script in scripts.walk_revisions()}
    return SchemaState.OLDER if found in known else SchemaState.NEWER


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
