"""Connections to the SQL database of one process."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Self

import orjson
from sqlalchemy import event, make_url
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.config import Settings
from shared.errors import AppError, ErrorCode

log = logging.getLogger("trunkline.db")

BUSY_SECONDS = 10
"""How long a writer of SQLite waits for another one, and whoever wants a connection for one to be free."""
CONNECT_SECONDS = 5
RETRY_SECONDS = 2
WRITES = "trunkline_writes"


class Database:
    """SQLite or Postgres, by `url`. Connects when it is first used."""

    def __init__(self, url: str, *, pool_size: int = 5) -> None:
        self.engine = _engine(url, pool_size)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(settings.database_url, pool_size=settings.database.pool_size)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may write; committed when the block ends, rolled back when it raises.

        Raises AppError UNAVAILABLE where the database is away; what else fails is the block's, IntegrityError too.
        """
        async with self.connect() as connection:
            await connection.execution_options(**{WRITES: True})
            async with connection.begin():
                yield connection

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """For reads: one consistent view on SQLite, each statement its own on Postgres. Raises as `begin`."""
        with _away_is_unavailable():
            async with AsyncExitStack() as held:
                connection = self.engine.connect()
                with _unconnected_is_unavailable():
                    await held.enter_async_context(connection)
                yield connection

    async def close(self) -> None:
        await self.engine.dispose()


def _engine(url: str, pool_size: int) -> AsyncEngine:
    engine = _engine_of(url, pool_size)
    event.listen(engine.sync_engine, "handle_error", _broken_is_unavailable)
    return engine


def _engine_of(url: str, pool_size: int) -> AsyncEngine:
    options: dict[str, Any] = {
        "pool_size": pool_size,
        "pool_timeout": BUSY_SECONDS,
        "json_serializer": lambda value: orjson.dumps(value).decode(),
        "json_deserializer": orjson.loads,
    }
    if make_url(url).get_backend_name() == "sqlite":
        engine = create_async_engine(url, connect_args={"timeout": BUSY_SECONDS}, **options)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    # A server that was restarted costs whoever comes next a ping, not an error.
    return create_async_engine(url, pool_pre_ping=True, connect_args={"timeout": CONNECT_SECONDS}, **options)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    # Without this the driver begins transactions by itself, and too late for what _begin_sqlite says.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes its place at once: one that reads first and writes then would be refused, not made to wait."""
    writes = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _away_is_unavailable() -> Iterator[None]:
    try:
        yield
    except (OperationalError, PoolTimeout) as error:
        raise _away(error) from error
    except DBAPIError as error:
        refused_to_connect = error.statement is None and not isinstance(error, IntegrityError)
        if not refused_to_connect and not error.connection_invalidated:
            raise
        raise _away(error) from error


@contextmanager
def _unconnected_is_unavailable() -> Iterator[None]:
    """The driver of Postgres lets through what the system says of its sockets."""
    try:
        yield
    except OSError as error:
        raise _away(error) from error


def _broken_is_unavailable(failed: ExceptionContext) -> None:
    """As above, under a statement: here it is known to be the database's, and not of the code around it."""
    if isinstance(failed.original_exception, OSError):
        failed.is_disconnect = True
        raise _away(failed.original_exception)


def _away(cause: BaseException) -> AppError:
    # Without the statement and its values, which may be anybody's.
    log.warning("the SQL database does not answer: %r", getattr(cause, "orig", cause))
    detail = "The SQL database does not answer. Try again; the log of the service says why."
    return AppError(ErrorCode.UNAVAILABLE, detail, retry_after=RETRY_SECONDS)
