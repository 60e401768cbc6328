"""What SQL said is remembered: fresh for a while, longer while SQL is away, and never for ever."""

import asyncio

import pytest

from gateway.auth import remembered
from gateway.auth.remembered import Remembered
from shared.errors import AppError, ErrorCode


class Table:
    """What is asked. `away` as SQL is; `hangs` until told otherwise."""

    def __init__(self) -> None:
        self.rows = {"a": 1}
        self.asked = 0
        self.away = False
        self.hangs: asyncio.Event | None = None

    async def load(self, name: str) -> int | None:
        self.asked += 1
        if self.hangs:
            await self.hangs.wait()
        if self.away:
            raise AppError(ErrorCode.UNAVAILABLE, "away")
        return self.rows.get(name)


@pytest.fixture
def table() -> Table:
    return Table()


def stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on answers are old at once, and nothing is left alone for a while."""
    for name in ("FRESH_SECONDS", "UNKNOWN_SECONDS", "RETRY_SECONDS"):
        monkeypatch.setattr(remembered, name, 0.0)


async def test_an_answer_is_asked_for_once_while_it_is_fresh(table: Table) -> None:
    known = Remembered(table.load, max_seconds=60)
    assert [await known.get("a") for _ in range(3)] == [1, 1, 1]
    assert (table.asked, known.knows("a")) == (1, True)


async def test_however_many_ask_at_once_sql_is_asked_once(table: Table) -> None:
    known = Remembered(table.load, max_seconds=60)
    assert await asyncio.gather(*(known.get("a") for _ in range(50))) == [1] * 50
    assert table.asked == 1


async def test_one_who_gives_up_takes_the_answer_from_nobody(table: Table) -> None:
    table.hangs = asyncio.Event()
    known = Remembered(table.load, max_seconds=60)
    first, second = asyncio.create_task(known.get("a")), asyncio.create_task(known.get("a"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    table.hangs.set()
    assert await second == 1


async def test_an_old_answer_is_asked_for_again(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    stale(monkeypatch)
    known = Remembered(table.load, max_seconds=60)
    assert await known.get("a") == 1
    table.rows["a"] = 2
    assert await known.get("a") == 2
    del table.rows["a"]
    assert await known.get("a") is None
    assert not known.knows("a")


async def test_while_sql_is_away_what_was_there_still_is(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    stale(monkeypatch)
    known = Remembered(table.load, max_seconds=60)
    assert await known.get("a") == 1
    assert await known.get("b") is None
    table.away = True
    assert await known.get("a") == 1
    for name in ("b", "never asked for"):
        with pytest.raises(AppError) as error:
            await known.get(name)
        assert error.value.code is ErrorCode.UNAVAILABLE


async def test_no_answer_outlasts_its_time(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    stale(monkeypatch)
    known = Remembered(table.load, max_seconds=0)
    assert await known.get("a") == 1
    table.away = True
    with pytest.raises(AppError):
        await known.get("a")


async def test_a_sql_that_hangs_is_as_one_that_is_away(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    stale(monkeypatch)
    monkeypatch.setattr(remembered, "LOAD_SECONDS", 0.05)
    known = Remembered(table.load, max_seconds=60)
    assert await known.get("a") == 1
    table.hangs = asyncio.Event()
    assert await known.get("a") == 1
    with pytest.raises(AppError):
        await known.get("b")
    table.hangs.set()


async def test_a_sql_that_is_away_is_not_waited_for_by_each_request(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "FRESH_SECONDS", 0.0)
    known = Remembered(table.load, max_seconds=60)
    await known.get("a")
    table.away = True
    assert [await known.get("a") for _ in range(5)] == [1] * 5
    assert table.asked == 2


async def test_no_more_is_remembered_than_there_is_room_for(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST", 3)
    known = Remembered(table.load, max_seconds=60)
    for name in ("a", "b", "c", "a", "d"):
        await known.get(name)
    assert known.knows("a")
    await known.get("b")
    assert table.asked == 5
