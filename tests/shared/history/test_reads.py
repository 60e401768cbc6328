"""What is read while a thread leaves Redis, or comes back."""

from typing import Any

import pytest
from redis.asyncio import Redis

from shared.db.engine import Database
from tests.support.archive import House


@pytest.fixture
def house(client: Redis, database: Database) -> House:
    return House(client, database)


@pytest.mark.parametrize("page", [{}, {"start": 0, "count": 9}])
async def test_steps_are_read_whole_while_their_thread_leaves(
    house: House, page: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await house.ended((await house.thread()).id)
    expected = await house.history.steps(run.id)
    assert len(expected) == 1
    for name in ("run", "steps", "journal"):
        await house.store.bring_back(run.thread_id, run.id)
        with monkeypatch.context() as patched:
            _then(house, name, house.evict, patched)
            assert await house.history.steps(run.id, **page) == expected


@pytest.mark.parametrize("method", ["messages", "thread"])
async def test_a_conversation_is_read_whole_while_its_thread_comes_back(
    house: House, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = await house.thread()
    await house.ended(thread.id, message="Hello")
    await house.evict()
    _then(house, method, lambda: house.store.bring_back(thread.id), monkeypatch)
    assert await house.history.messages(thread.id) == [{"role": "assistant", "content": "Hello"}]


def _then(house: House, name: str, what: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It happens right after the store was asked that the first time."""
    ask, asked = getattr(house.store, name), list[str]()

    async def once(*args: Any, **named: Any) -> Any:
        answer = await ask(*args, **named)
        if not asked:
            asked.append(name)
            await what()
        return answer

    monkeypatch.setattr(house.store, name, once)
