"""Names that clients give threads, whatever has become of those threads. Sessions: test_agent_runs.py."""

import asyncio

import pytest

from tests.gateway.support import Gateway
from tests.support.archive import House

PAIR = {"flowUuid": "f", "flowInputUuid": "i"}


@pytest.fixture
def house(sql_gateway: Gateway) -> House:
    return House(sql_gateway.redis, sql_gateway.app.state.services.db)


async def test_a_pair_whose_thread_was_evicted_has_it_still(sql_gateway: Gateway, house: House) -> None:
    assert (await sql_gateway.client.post("/api/agent/initiate", json=PAIR)).status_code == 200
    await house.evict()
    assert (await sql_gateway.client.post("/api/agent/initiate", json=PAIR)).status_code == 409


@pytest.mark.parametrize("archived", [False, True])
async def test_a_pair_whose_thread_was_deleted_gets_one_other(
    sql_gateway: Gateway, house: House, archived: bool
) -> None:
    first = (await sql_gateway.client.post("/api/agent/initiate", json=PAIR)).json()["thread_id"]
    assert (await sql_gateway.client.delete(f"/api/agent/{first}")).status_code == 204
    if archived:
        await house.archive()
    opening = [sql_gateway.client.post("/api/agent/initiate", json=PAIR) for _ in range(5)]
    answers = await asyncio.gather(*opening)
    opened = {answer.json()["thread_id"] for answer in answers if answer.status_code == 200}
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert len(opened) == 1
    assert first not in opened
