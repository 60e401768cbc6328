"""What the database's failures become, and what is none of them."""

import asyncio

import pytest
from sqlalchemy import event, text

from shared.db.engine import Database
from shared.errors import AppError, ErrorCode
from tests.support.ports import free_port


@pytest.mark.parametrize("way", ["begin", "connect"])
@pytest.mark.parametrize("own", [FileNotFoundError("no such template"), ConnectionResetError("somebody else's")])
async def test_what_fails_in_the_block_but_is_not_the_databases_is_left_as_it_is(
    database: Database, way: str, own: OSError
) -> None:
    async def fail() -> None:
        async with getattr(database, way)() as c:
            await c.execute(text("SELECT 1"))
            raise own

    with pytest.raises(type(own)) as raised:
        await fail()
    assert raised.value is own


async def test_a_time_limit_in_the_block_is_the_blocks(database: Database) -> None:
    with pytest.raises(TimeoutError):
        async with database.connect(), asyncio.timeout(0):
            await asyncio.Event().wait()


async def test_a_database_that_refuses_to_connect_is_away() -> None:
    database = Database(f"postgresql+asyncpg://nobody@127.0.0.1:{free_port()}/none")
    with pytest.raises(AppError) as away:
        async with database.connect():
            pass
    assert away.value.code is ErrorCode.UNAVAILABLE
    await database.close()


async def test_a_connection_that_breaks_under_a_statement_is_the_database_away(database: Database) -> None:
    def broken(*_: object) -> None:
        raise ConnectionResetError

    event.listen(database.engine.sync_engine, "do_execute", broken)
    with pytest.raises(AppError) as away:
        async with database.connect() as c:
            await c.execute(text("SELECT 1"))
    assert away.value.code is ErrorCode.UNAVAILABLE
    event.remove(database.engine.sync_engine, "do_execute", broken)
    async with database.connect() as c:
        assert (await c.execute(text("SELECT 1"))).scalar_one() == 1
