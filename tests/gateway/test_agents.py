"""Agents over HTTP: made of definitions that workers tell of, changed, moved from status to status."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from shared.config import AgentsSettings, DatabaseSettings, Settings, ToolsSettings
from shared.types import JSON
from shared.workers.catalogue import Catalogue, DefinitionCard, tell_catalogue
from shared.workers.tools import tell_tools
from tests.gateway.support import Gateway, serving, settings_for
from workflow.definitions.registry import load_definitions
from workflow.tool.listing import cards_of
from workflow.tool.registry import built_in_tools

HOOKED = DefinitionCard("hooked", "Of code.", "code", hooks=True)
TOOLS = built_in_tools().tools


async def tell(gateway: Gateway, *more: DefinitionCard) -> None:
    """What a worker does when it starts."""
    cards = load_definitions(AgentsSettings()).given([tool.name for tool in TOOLS])
    models: JSON = {"providers": ["openai"], "models": ["gpt-bare"]}
    await tell_catalogue(gateway.redis, Catalogue("0", [*cards, *more], **models))
    await tell_tools(gateway.redis, cards_of(TOOLS, ToolsSettings().gives))


@pytest.fixture
async def agents(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway over either kind of database, whose workers have told what they know."""
    async with serving(settings_for(redis_url, tmp_path, database=DatabaseSettings(url=database_url))) as gateway:  # type: ignore[arg-type]
        await tell(gateway, HOOKED)
        yield gateway


async def made(gateway: Gateway, **fields: Any) -> JSON:
    answer = await gateway.client.post("/api/agents", json={"name": "A", "definition_id": "agent", **fields})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def published(gateway: Gateway) -> list[JSON]:
    entries: list[Any] = await gateway.redis.xrange("channel:{default}") or []
    return [entry for _, entry in entries]


async def test_an_agent_is_made_read_changed_and_deleted(agents: Gateway) -> None:
    first = await made(agents, definition_id="coder", temperature=0.5, metadata={"a": 1})
    assert (first["status"], first["version"], first["definition_id"]) == ("inactive", 1, "coder")
    read = await agents.client.get(f"/api/agents/{first['id']}")
    assert (read.json(), read.headers["etag"]) == (first, '"1"')
    change = {"name": "B", "temperature": None, "limits": {"max_turns": 3}}
    changed = await agents.client.patch(f"/api/agents/{first['id']}", json=change, headers={"If-Match": '"1"'})
    assert changed.headers["etag"] == '"2"'
    expected = {**first, **change, "version": 2, "updated_at": changed.json()["updated_at"]}
    assert changed.json() == expected
    assert (await agents.client.delete(f"/api/agents/{first['id']}", headers={"If-Match": "2"})).status_code == 204
    assert (await agents.client.get(f"/api/agents/{first['id']}")).status_code == 404


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"modelProvider": "openai", "modelName": "gpt-x"}, {"model": "openai/gpt-x", "model_provider": "openai"}),
        ({"model": "gpt-bare"}, {"model_provider": None, "model_name": "gpt-bare"}),
        ({"model": None, "model_config": None, "modelName": "gpt-bare"}, {"model_name": "gpt-bare"}),
        ({"tools": None, "tool_config": {"tools": ["bash"]}, "model_provider": None}, {"tools": ["bash"]}),
        ({"systemPrompt": "Be brief."}, {"prompt": "Be brief."}),
        (
            {"model_config": {"provider": "openai", "id": "gpt-x", "temperature": 1}},
            {"model_name": "gpt-x", "temperature": 1},
        ),
        ({"tool_config": {"tools": ["bash"]}}, {"tools": ["bash"]}),
        (
            {"knowledge_config": {"k": 1}, "storageConfig": {"s": 2}},
            {"knowledge_config": {"k": 1}, "storage_config": {"s": 2}},
        ),
        ({"sandbox": {"enabled": False}}, {"sandbox": {"enabled": False}}),
    ],
)
async def test_the_words_of_the_source_designs_are_understood(gateway: Gateway, given: JSON, expected: JSON) -> None:
    await tell(gateway)
    agent = await made(gateway, **given)
    assert {name: agent[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"definition_id": "clerk"}, "body.definition_id"),
        ({"model": "nobody/knows"}, "body.model"),
        ({"model": "unheard-of"}, "body.model"),
        ({"tools": ["bash", "hammer"]}, "body.tools"),
        ({"tools": ["web_search"]}, "body.tools"),
        ({"model": "gpt-bare", "modelName": "x"}, "body"),
        ({"modelProvider": "openai"}, "body"),
        ({"nme": "x"}, "body.nme"),
        ({"name": " "}, "body.name"),
        ({"temperature": 3}, "body.temperature"),
        ({"limits": {"max_turns": 0}}, "body.limits.max_turns"),
    ],
)
async def test_what_is_not_there_or_wrong_is_refused_with_its_place(gateway: Gateway, wrong: JSON, place: str) -> None:
    await tell(gateway)
    answer = await gateway.client.post("/api/agents", json={"name": "A", **wrong})
    assert answer.status_code == 400
    assert [error["place"] for error in answer.json()["errors"]] == [place]


async def test_a_project_that_is_not_there_is_refused(agents: Gateway) -> None:
    answer = await agents.client.post("/api/agents", json={"name": "A", "projectId": "nope"})
    assert (answer.status_code, "no project nope" in answer.text) == (404, True)


async def test_the_kinds_of_agents_are_those_that_workers_tell_of(gateway: Gateway) -> None:
    waits = await gateway.client.get("/api/agents/definitions")
    assert (waits.status_code, waits.headers["retry-after"]) == (503, "2")
    await tell(gateway, HOOKED)
    kinds = {kind["id"]: kind for kind in (await gateway.client.get("/api/agents/definitions")).json()["items"]}
    assert kinds.keys() == {"agent", "builder", "chat", "coder", "hooked", "researcher", "reviewer"}
    assert kinds["hooked"] == asdict(HOOKED)
    assert "edit_file" not in kinds["reviewer"]["tools"]
    assert kinds["chat"]["sandbox"] is False


async def test_the_list_has_pages_and_filters(agents: Gateway) -> None:
    ids = [(await made(agents, definition_id="chat"))["id"] for _ in range(4)]
    active = (await made(agents, activate=True))["id"]
    page = (await agents.client.get("/api/agents?limit=3")).json()
    rest = (await agents.client.get(f"/api/agents?limit=3&cursor={page['next_cursor']}")).json()
    assert [agent["id"] for agent in page["items"] + rest["items"]] == [active, *ids[::-1]]
    assert rest["next_cursor"] is None
    skipped = (await agents.client.get("/api/agents?skip=4")).json()["items"]
    assert [agent["id"] for agent in skipped] == [ids[0]]
    for query, expected in [
        ("status=active", [active]),
        ("definition_id=chat&limit=1", [ids[-1]]),
        ("projectId=p", []),
    ]:
        found = (await agents.client.get(f"/api/agents?{query}")).json()["items"]
        assert [agent["id"] for agent in found] == expected
    assert (await agents.client.get("/api/agents?cursor=nonsense")).status_code == 400


async def test_a_change_of_what_somebody_else_has_changed_is_refused(agents: Gateway) -> None:
    path = f"/api/agents/{(await made(agents))['id']}"
    assert (await agents.client.patch(path, json={"name": "B", "expected_version": 1})).status_code == 200
    stale = [
        agents.client.patch(path, json={"name": "C"}, headers={"If-Match": '"1"'}),
        agents.client.patch(path, json={"name": "C", "expected_version": 1}),
        agents.client.post(f"{path}/activate", headers={"If-Match": '"1"'}),
        agents.client.delete(path, headers={"If-Match": '"1"'}),
    ]
    assert [answer.status_code for answer in await asyncio.gather(*stale)] == [409] * 4
    assert (await agents.client.get(path)).json()["name"] == "B"


MOVES = {
    ("inactive", "activate"): "active",
    ("inactive", "deactivate"): "inactive",
    ("inactive", "shutdown"): "shutdown",
    ("active", "activate"): "active",
    ("active", "deactivate"): "inactive",
    ("active", "shutdown"): "shutdown",
    ("shutdown", "activate"): None,
    ("shutdown", "deactivate"): None,
    ("shutdown", "shutdown"): "shutdown",
}


@pytest.mark.parametrize(("before", "move"), MOVES)
async def test_each_move_leads_where_it_should_or_is_refused(gateway: Gateway, before: str, move: str) -> None:
    await tell(gateway)
    agent = await made(gateway, activate=before == "active")
    path = f"/api/agents/{agent['id']}"
    if before == "shutdown":
        agent = (await gateway.client.post(f"{path}/shutdown")).json()
    answer = await gateway.client.post(f"{path}/{move}")
    after = MOVES[before, move]
    assert answer.status_code == (200 if after else 409)
    now = (await gateway.client.get(path)).json()
    assert now["status"] == (after or before)
    assert now["version"] == agent["version"] + (now["status"] != before)
    told = [entry for entry in await published(gateway) if entry["t"] == "agent_status_changed"]
    assert len(told) == now["version"] - 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, "active"),
        ({"activate": False}, "inactive"),
        ({"definition_id": "chat"}, "inactive"),
        ({"definition_id": "chat", "activate": True}, "active"),
    ],
)
async def test_an_agent_takes_runs_at_once_unless_it_names_its_definition_or_says_no(
    agents: Gateway, body: JSON, status: str
) -> None:
    answer = await agents.client.post("/api/agents", json={"name": "A", **body})
    assert (answer.status_code, answer.json()["status"]) == (201, status)


async def test_a_patch_of_the_status_is_a_move(agents: Gateway) -> None:
    path = f"/api/agents/{(await made(agents))['id']}"
    active = (await agents.client.patch(path, json={"status": "active", "name": "B"})).json()
    assert (active["status"], active["name"], active["version"]) == ("active", "B", 2)
    assert (await agents.client.delete(path)).status_code == 409
    await agents.client.patch(path, json={"status": "shutdown"})
    refused = await agents.client.patch(path, json={"status": "active", "name": "C"})
    assert refused.status_code == 409
    assert (await agents.client.get(path)).json()["name"] == "B"


async def test_of_many_moves_at_once_each_is_made_once(agents: Gateway) -> None:
    path = f"/api/agents/{(await made(agents))['id']}"
    answers = await asyncio.gather(*(agents.client.post(f"{path}/activate") for _ in range(10)))
    assert [answer.status_code for answer in answers] == [200] * 10
    assert {answer.json()["version"] for answer in answers} == {2}


async def test_the_same_request_to_make_one_makes_one(agents: Gateway) -> None:
    headers = {"Idempotency-Key": "k-1"}
    body = {"name": "A", "activate": True}
    first, second = [await agents.client.post("/api/agents", json=body, headers=headers) for _ in range(2)]
    assert first.json() == second.json()
    assert first.json()["version"] == 2
    assert (await agents.client.post("/api/agents", json={"name": "B"}, headers=headers)).status_code == 409


async def test_where_agents_are_turned_off_they_are_refused_in_words(redis_url: str, tmp_path: Path) -> None:
    settings: Settings = settings_for(redis_url, tmp_path, agents=AgentsSettings(enabled=False))
    async with serving(settings) as gateway:
        for path in ("", "/definitions", "/a", "/a/context", "/a/messages"):
            answer = await gateway.client.get(f"/api/agents{path}")
            assert (answer.status_code, answer.json()["code"]) == (501, "not_implemented")
            assert "agents.enabled" in answer.text
        assert await gateway.thread()
