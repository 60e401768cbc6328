"""The list of tools, of which the workers tell the gateway."""

from dataclasses import asdict

from shared.workers.tools import ToolCard, tell_tools
from tests.gateway.support import Gateway
from workflow.tool.listing import cards_of
from workflow.tool.registry import built_in_tools

CARDS = cards_of(built_in_tools().tools, enabled=lambda name: name != "web_search")


async def test_tools_are_listed_in_pages_whether_agents_are_given_them_or_not(gateway: Gateway) -> None:
    await tell_tools(gateway.redis, CARDS)
    first = (await gateway.client.get("/api/tools?limit=5")).json()
    rest = (await gateway.client.get(f"/api/tools?limit=200&cursor={first['next_cursor']}")).json()
    listed = first["items"] + rest["items"]
    assert rest["next_cursor"] is None
    told = sorted((asdict(card) for card in CARDS), key=lambda card: str(card["name"]))
    assert [{name: tool[name] for name in told[0]} for tool in listed] == told
    assert {tool["name"]: tool["enabled"] for tool in listed}["web_search"] is False
    assert {tool["type"] for tool in listed} == {"builtin"}


async def test_a_tool_is_found_by_its_name_and_an_unknown_one_is_not(gateway: Gateway) -> None:
    await tell_tools(gateway.redis, CARDS)
    bash = (await gateway.client.get("/api/tools/bash")).json()
    assert (bash["effect"], bash["input_schema"]["required"]) == ("none", ["command"])
    assert (await gateway.client.get("/api/tools/hammer")).status_code == 404


async def test_there_are_none_before_a_worker_has_started_and_the_last_word_counts(gateway: Gateway) -> None:
    assert (await gateway.client.get("/api/tools")).json() == {"items": [], "next_cursor": None}
    await tell_tools(gateway.redis, CARDS)
    await tell_tools(gateway.redis, [ToolCard("count", "Counts.", "custom", "repeatable", True, {"type": "object"})])
    assert [tool["name"] for tool in (await gateway.client.get("/api/tools")).json()["items"]] == ["count"]
