"""Contexts and messages of agents over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from shared.config import AgentsSettings, DatabaseSettings
from shared.types import JSON
from tests.gateway.support import Gateway, serving, settings_for, until
from tests.gateway.test_agents import made, published, tell

ACK_SECONDS = 2
LIMITS = AgentsSettings(context_history_limit=5, message_retention_limit=6, message_ack_window_seconds=ACK_SECONDS)


@pytest.fixture
async def agents(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    settings = settings_for(redis_url, tmp_path, database=DatabaseSettings(url=database_url), agents=LIMITS)  # type: ignore[arg-type]
    async with serving(settings) as gateway:
        await tell(gateway)
        yield gateway


async def written(gateway: Gateway, path: str, **body: object) -> JSON:
    answer = await gateway.client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_a_context_is_empty_until_it_is_written_in_versions(agents: Gateway) -> None:
    path = f"/api/agents/{(await made(agents))['id']}/context"
    new = await agents.client.get(path)
    assert (new.json()["version"], new.json()["data"], new.headers["etag"]) == (0, {}, '"0"')
    assert (await agents.client.get(path)).json() == new.json()
    version = await written(agents, path, data={"goal": "ship"}, note="a goal", expected_version=0)
    assert (version["version"], version["note"]) == (1, "a goal")
    assert (await agents.client.get(path)).json() == version
    other = (await agents.client.get(f"{path}?context_name=other")).json()
    assert (other["context_name"], other["version"]) == ("other", 0)


async def test_of_those_who_write_after_the_same_version_one_wins_and_the_others_hear_of_it(agents: Gateway) -> None:
    path = f"/api/agents/{(await made(agents))['id']}/context"
    await written(agents, path, data={})
    writes = [agents.client.post(path, json={"data": {"n": n}, "expected_version": 1}) for n in range(8)]
    writes += [agents.client.post(path, json={"data": {"n": 8}}, headers={"If-Match": '"1"'})]
    statuses = sorted(answer.status_code for answer in await asyncio.gather(*writes))
    assert statuses == [201] + [409] * 8
    assert (await agents.client.get(path)).json()["version"] == 2


async def test_blind_writers_lose_no_version(agents: Gateway) -> None:
    path = f"/api/agents/{(await made(agents))['id']}/context"
    writes = await asyncio.gather(*(written(agents, path, data={"n": n}) for n in range(5)))
    assert sorted(version["version"] for version in writes) == [1, 2, 3, 4, 5]


async def test_a_rollback_is_a_new_version_equal_to_the_old_one_and_told_of(agents: Gateway) -> None:
    agent = await made(agents)
    path = f"/api/agents/{agent['id']}/context"
    for number in (1, 2, 3):
        await written(agents, path, data={"n": number})
    stale = await agents.client.post(f"{path}/rollback", json={"version": 1, "expected_version": 2})
    assert stale.status_code == 409
    back = await written(agents, f"{path}/rollback", version=1)
    assert (back["version"], back["data"], back["restored_version"]) == (4, {"n": 1}, 1)
    listed = (await agents.client.get(f"{path}/versions?limit=3")).json()
    rest = (await agents.client.get(f"{path}/versions?limit=3&cursor={listed['next_cursor']}")).json()
    assert [version["version"] for version in listed["items"] + rest["items"]] == [4, 3, 2, 1]
    assert listed["items"][0] == back
    last = (await published(agents))[-1]
    assert (last["t"], last["r"]) == ("agent_context_updated", agent["id"])
    assert orjson.loads(last["e"])["data"]["version"] == 4


@pytest.mark.parametrize(("rest", "body"), [("", {"data": {"n": 2}}), ("/rollback", {"version": 1})])
async def test_the_same_request_for_a_version_makes_one(agents: Gateway, rest: str, body: JSON) -> None:
    path = f"/api/agents/{(await made(agents))['id']}/context"
    await written(agents, path, data={"n": 1})
    body = {**body, "expected_version": 1}
    headers = {"Idempotency-Key": "v-1"}
    first, again = [await agents.client.post(path + rest, json=body, headers=headers) for _ in range(2)]
    assert (first.status_code, first.json()) == (again.status_code, again.json()) == (201, again.json())
    assert first.json()["version"] == 2
    assert (await agents.client.get(path)).json() == first.json()


async def test_only_the_newest_versions_are_kept_and_the_others_cannot_be_gone_back_to(agents: Gateway) -> None:
    path = f"/api/agents/{(await made(agents))['id']}/context"
    for number in range(1, 9):
        await written(agents, path, data={"n": number})
    listed = (await agents.client.get(f"{path}/versions")).json()["items"]
    assert [version["version"] for version in listed] == [8, 7, 6, 5, 4]
    gone = await agents.client.post(f"{path}/rollback", json={"version": 3})
    assert (gone.status_code, "versions 4 to 8 are kept" in gone.text) == (404, True)


async def test_a_message_is_kept_listed_and_broadcast_once(agents: Gateway) -> None:
    agent = await made(agents)
    path = f"/api/agents/{agent['id']}/messages"
    headers = {"Idempotency-Key": "m-1"}
    body = {"content": "The deploy is through.", "sender": "ci", "metadata": {"build": 7}}
    first, again = [(await agents.client.post(path, json=body, headers=headers)).json() for _ in range(2)]
    assert first == again
    assert first["data"] == {"build": 7}
    assert (await agents.client.get(path)).json()["items"] == [first]
    told = [entry for entry in await published(agents) if entry["t"] == "agent_message"]
    assert [orjson.loads(entry["e"])["data"]["message"] for entry in told] == [first]


async def test_messages_are_listed_by_skip_and_by_cursor_and_only_the_newest_are_kept(agents: Gateway) -> None:
    path = f"/api/agents/{(await made(agents))['id']}/messages"
    sent = [(await written(agents, path, content=f"m{number}"))["id"] for number in range(8)][:1:-1]
    first = (await agents.client.get(f"{path}?limit=4")).json()
    rest = (await agents.client.get(f"{path}?limit=4&cursor={first['next_cursor']}")).json()
    skipped = (await agents.client.get(f"{path}?skip=4")).json()
    assert [message["id"] for message in first["items"] + rest["items"]] == sent
    assert skipped["items"] == rest["items"]


async def test_a_message_can_be_acknowledged_within_its_window_only(agents: Gateway) -> None:
    path = f"/api/agents/{(await made(agents))['id']}/messages"
    first, second = [(await written(agents, path, content="hi"))["id"] for _ in range(2)]
    done = (await agents.client.post(f"{path}/{first}/ack")).json()
    assert done["acknowledged_at"]
    assert (await agents.client.post(f"{path}/{first}/ack")).json() == done
    listed = (await agents.client.get(f"{path}?acknowledged=false")).json()["items"]
    assert [message["id"] for message in listed] == [second]

    async def is_too_late() -> bool:
        third = (await written(agents, path, content="hi"))["id"]
        await asyncio.sleep(ACK_SECONDS + 0.01)
        return (await agents.client.post(f"{path}/{third}/ack")).status_code == 409

    await until(is_too_late)
    assert (await agents.client.post(f"{path}/{first}/ack")).json() == done
    assert (await agents.client.post(f"{path}/nope/ack")).status_code == 404


async def test_what_belongs_to_an_agent_that_is_not_there_is_not_there(agents: Gateway) -> None:
    for path in ("", "/context", "/context/versions", "/messages"):
        assert (await agents.client.get(f"/api/agents/nope{path}")).status_code == 404
    for path, body in (
        ("/context", {"data": {}}),
        ("/context/rollback", {"version": 1}),
        ("/messages", {"content": "x"}),
    ):
        assert (await agents.client.post(f"/api/agents/nope{path}", json=body)).status_code == 404
