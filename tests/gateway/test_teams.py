"""Teams over HTTP: of agents that are there, changed without losing another's change."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.config import DatabaseSettings
from shared.types import JSON
from tests.gateway.support import Gateway, serving, settings_for
from tests.gateway.test_agents import made, tell


@pytest.fixture
async def catalogue(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway over either kind of database, whose workers have told what they know."""
    async with serving(settings_for(redis_url, tmp_path, database=DatabaseSettings(url=database_url))) as gateway:  # type: ignore[arg-type]
        await tell(gateway)
        yield gateway


async def a_team(gateway: Gateway, **fields: Any) -> JSON:
    leader = fields.pop("leader_agent_id", None) or (await made(gateway))["id"]
    answer = await gateway.client.post("/api/teams", json={"name": "T", "leader_agent_id": leader, **fields})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_a_team_is_made_read_changed_and_deleted(catalogue: Gateway) -> None:
    a, b = [(await made(catalogue))["id"] for _ in range(2)]
    team = await a_team(
        catalogue,
        leader_agent_id=a,
        memberAgentIds=[b, a],
        mode="route",
        limits={"max_cost": 2},
        knowledgeConfig={"k": 1},
        metadata={"m": 1},
    )
    assert (team["version"], team["member_agent_ids"], team["mode"]) == (1, [b, a], "route")
    assert (team["limits"], team["knowledge_config"], team["metadata"]) == ({"max_cost": 2}, {"k": 1}, {"m": 1})
    path = f"/api/teams/{team['id']}"
    read = await catalogue.client.get(path)
    assert (read.json(), read.headers["etag"]) == (team, '"1"')
    change = {"member_agent_ids": [a], "instructions": "Be quick."}
    changed = await catalogue.client.patch(path, json=change, headers={"If-Match": '"1"'})
    assert changed.json() == {**team, **change, "version": 2, "updated_at": changed.json()["updated_at"]}
    stale = await catalogue.client.patch(path, json={"name": "U", "expected_version": 1})
    assert (stale.status_code, (await catalogue.client.get(path)).json()["name"]) == (409, "T")
    held = await catalogue.client.delete(f"/api/agents/{a}")
    assert (held.status_code, (await catalogue.client.delete(f"/api/agents/{b}")).status_code) == (409, 204)
    assert (await catalogue.client.delete(path, headers={"If-Match": "2"})).status_code == 204
    assert (await catalogue.client.get(path)).status_code == 404


async def test_agents_that_are_not_there_are_named_with_their_places(catalogue: Gateway) -> None:
    agent = (await made(catalogue))["id"]
    body = {"name": "T", "leader_agent_id": "nobody", "member_agent_ids": [agent, "nowhere"]}
    answer = await catalogue.client.post("/api/teams", json=body)
    assert answer.status_code == 400
    assert {error["place"]: error["detail"] for error in answer.json()["errors"]} == {
        "body.leader_agent_id": "there is no agent nobody",
        "body.member_agent_ids.1": "there is no agent nowhere",
    }
    team = await a_team(catalogue, leader_agent_id=agent)
    changed = await catalogue.client.patch(f"/api/teams/{team['id']}", json={"member_agent_ids": ["nowhere"]})
    assert (changed.status_code, "nowhere" in changed.text) == (400, True)


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"mode": "quarrel"}, "body.mode"),
        ({"name": " "}, "body.name"),
        ({"name": "a\x00"}, "body.name"),
        ({"metadata": {"a": "\x00"}}, "body.metadata"),
        ({"member_agent_ids": ["a", "a"]}, "body"),
        ({"size": 3}, "body.size"),
        ({"limits": {"max_turns": 0}}, "body.limits.max_turns"),
    ],
)
async def test_what_is_wrong_is_refused_with_its_place(gateway: Gateway, wrong: JSON, place: str) -> None:
    await tell(gateway)
    answer = await gateway.client.post("/api/teams", json={"name": "T", "leader_agent_id": "a", **wrong})
    assert (answer.status_code, [error["place"] for error in answer.json()["errors"]]) == (400, [place])


async def test_the_list_has_pages_and_the_same_request_makes_one(gateway: Gateway) -> None:
    await tell(gateway)
    leader = (await made(gateway))["id"]
    ids = [(await a_team(gateway, leader_agent_id=leader))["id"] for _ in range(3)]
    page = (await gateway.client.get("/api/teams?limit=2")).json()
    rest = (await gateway.client.get(f"/api/teams?limit=2&cursor={page['next_cursor']}")).json()
    assert [team["id"] for team in page["items"] + rest["items"]] == ids[::-1]
    assert (await gateway.client.get("/api/teams?project_id=p")).json()["items"] == []
    body, key = {"name": "T", "leader_agent_id": leader}, {"Idempotency-Key": "k"}
    answers = [await gateway.client.post("/api/teams", json=body, headers=key) for _ in range(2)]
    assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize("kind", ["teams", "tools", "workflows", "tasks"])
async def test_an_id_of_any_text_is_of_nothing_that_is_there(catalogue: Gateway, kind: str) -> None:
    for text in ("nope", "%00", "a%20b", "x" * 150):
        assert (await catalogue.client.get(f"/api/{kind}/{text}")).status_code == 404
        assert (await catalogue.client.delete(f"/api/{kind}/{text}")).status_code == 404
    assert (await catalogue.client.get(f"/api/{kind}?project_id=%00")).status_code == 400
