"""Names that clients give threads, whatever has become of those threads. Sessions: test_agent_runs.py."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.names import REMEMBERED_SECONDS, thread_named
from modem.retention import TOMBSTONE_SECONDS
from shared import keys
from shared.config import DatabaseSettings
from shared.errors import AppError
from shared.ids import new_thread_id
from shared.threads.types import NewThread
from tests.gateway.support import Gateway, serving, settings_for
from tests.support.archive import ALL, House

PAIR = {"flowUuid": "f", "flowInputUuid": "i"}
Move = Callable[[], Awaitable[None]]
NAME = keys.flow("default", *PAIR.values())


@pytest.fixture
def house(sql_gateway: Gateway) -> House:
    return House(sql_gateway.redis, sql_gateway.app.state.services.db)


async def opened(gateway: Gateway) -> str:
    answer = await gateway.client.post("/api/agent/initiate", json=PAIR)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["thread_id"])


async def forgotten(gateway: Gateway) -> None:
    """What Redis does after some time."""
    assert 0 < await gateway.redis.ttl(NAME) <= REMEMBERED_SECONDS < TOMBSTONE_SECONDS
    await gateway.redis.delete(NAME)


async def test_a_pair_whose_thread_was_evicted_has_it_still(sql_gateway: Gateway, house: House) -> None:
    thread_id = await opened(sql_gateway)
    await house.evict()
    for _ in range(2):
        again = await sql_gateway.client.post("/api/agent/initiate", json=PAIR)
        assert again.status_code == 409
        assert thread_id in again.json()["detail"]
        await forgotten(sql_gateway)


async def test_the_stream_of_a_pair_is_found_when_redis_knows_neither(sql_gateway: Gateway, house: House) -> None:
    await sql_gateway.finished_run(await opened(sql_gateway))
    await house.evict()
    await forgotten(sql_gateway)
    async with sql_gateway.stream("/api/agent/event-stream?flowUuid=f&flowInputUuid=i") as stream:
        assert [frame.data["type"] for frame in await stream.frames(2)] == ["run.queued", "run.started"]


@pytest.mark.parametrize("archived", [False, True])
async def test_a_pair_whose_thread_was_deleted_gets_one_other(
    sql_gateway: Gateway, house: House, archived: bool
) -> None:
    first = await opened(sql_gateway)
    assert (await sql_gateway.client.delete(f"/api/agent/{first}")).status_code == 204
    if archived:
        await house.archive()
        await forgotten(sql_gateway)
    opening = [sql_gateway.client.post("/api/agent/initiate", json=PAIR) for _ in range(5)]
    answers = await asyncio.gather(*opening)
    made = {answer.json()["thread_id"] for answer in answers if answer.status_code == 200}
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert len(made) == 1
    assert first not in made


async def test_without_sql_a_name_is_not_taken_for_a_new_one(redis_url: str, tmp_path: Path) -> None:
    nowhere = DatabaseSettings(url=SecretStr(f"sqlite+aiosqlite:///{tmp_path}/none/of/it.db"))
    async with serving(settings_for(redis_url, tmp_path, database=nowhere)) as gateway:
        unknown = await gateway.client.post("/api/agent/initiate", json=PAIR)
        assert (unknown.status_code, unknown.json()["code"]) == (503, "unavailable")
        async with gateway.stream("/api/agent/event-stream?flowUuid=f&flowInputUuid=i") as stream:
            assert (await stream.frames(1))[0].data["status"] == 503
        await gateway.redis.set(NAME, await gateway.thread())
        assert (await gateway.client.post("/api/agent/initiate", json=PAIR)).status_code == 409


@pytest.mark.parametrize("seed", range(3))
async def test_of_many_at_once_on_two_gateways_a_name_has_one_thread_until_that_is_deleted(
    sql_gateway: Gateway, house: House, redis_url: str, tmp_path: Path, seed: int
) -> None:
    (tmp_path / "other").mkdir()
    database = DatabaseSettings(url=sql_gateway.app.state.services.settings.database.url)
    dice, doomed, wrong = random.Random(seed), set[str](), list[str]()
    now = ""

    async with serving(settings_for(redis_url, tmp_path / "other", database=database)) as other:

        async def name() -> None:
            nonlocal now
            services = dice.choice([sql_gateway, other]).app.state.services
            before = now
            found = await thread_named(services, NAME, new_thread_id())
            with suppress(AppError):  # deleted meanwhile
                await services.store.create_thread(NewThread(found, "default"))
                wrong.extend([before] if before not in {"", found, *doomed} else [])
                now = found

        async def delete() -> None:
            doomed.add(thread_id := now)
            await sql_gateway.client.delete(f"/api/agent/{thread_id}")

        async def forget() -> None:
            await sql_gateway.redis.delete(NAME)

        async def evict() -> None:
            await house.evictor.tick(ALL)

        moves: list[Move] = [name, name, name, delete, forget, house.archive, evict]
        for _ in range(25):
            await asyncio.gather(*(dice.choice(moves)() for _ in range(6)))
    assert doomed - {""}
    assert wrong == []
