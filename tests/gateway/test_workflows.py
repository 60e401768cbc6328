"""Workflows over HTTP: graphs that can be run, with every version that they have had."""

import copy
from typing import Any

import pytest

from shared.types import JSON
from tests.gateway.support import Gateway
from tests.gateway.test_agents import made, tell
from tests.gateway.test_teams import catalogue

__all__ = ["catalogue"]

GRAPH: JSON = {
    "nodes": [
        {"id": "begin", "type": "start", "label": "Begin"},
        {"id": "work", "type": "agent", "agentId": "coder", "config": {"prompt": "Do it."}},
        {"id": "look", "type": "tool", "toolId": "bash"},
        {"id": "done", "type": "end"},
    ],
    "edges": [
        {"id": "1", "fromNodeId": "begin", "toNodeId": "work"},
        {"id": "2", "fromNodeId": "work", "toNodeId": "look"},
        {"id": "3", "from_node_id": "look", "to_node_id": "done"},
    ],
}


def graph_with(node: int, **fields: Any) -> JSON:
    graph = copy.deepcopy(GRAPH)
    graph["nodes"][node] |= fields
    return graph


async def a_workflow(gateway: Gateway, **fields: Any) -> JSON:
    answer = await gateway.client.post("/api/workflows", json={"name": "W", "graph": GRAPH, **fields})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_a_workflow_is_made_replaced_and_deleted_and_its_graphs_are_kept(catalogue: Gateway) -> None:
    agent = (await made(catalogue))["id"]
    first = await a_workflow(catalogue, description="D", note="the first", metadata={"a": 1})
    assert first["graph"]["nodes"][1]["agent_id"] == "coder"
    assert first["graph"]["edges"][0]["from_node_id"] == "begin"
    path = f"/api/workflows/{first['id']}"
    read = await catalogue.client.get(path)
    assert (read.json(), read.headers["etag"]) == (first, '"1"')

    renamed = (await catalogue.client.put(path, json={"name": "V", "graph": GRAPH})).json()
    assert (renamed["version"], renamed["graph_version"], renamed["description"]) == (2, 1, "")
    other = graph_with(1, agentId=agent)
    body = {"name": "V", "graph": other, "note": "ours", "expected_version": 2}
    assert (await catalogue.client.put(path, json=body)).json()["graph_version"] == 2
    assert (await catalogue.client.put(path, json=body)).status_code == 409

    page = (await catalogue.client.get(f"{path}/versions?limit=1")).json()
    rest = (await catalogue.client.get(f"{path}/versions?limit=1&cursor={page['next_cursor']}")).json()
    kept = page["items"] + rest["items"]
    assert [(each["graph_version"], each["note"]) for each in kept] == [(2, "ours"), (1, "the first")]
    assert kept[0]["graph"]["nodes"][1]["agent_id"] == agent
    assert rest["next_cursor"] is None
    assert [each["id"] for each in (await catalogue.client.get("/api/workflows")).json()["items"]] == [first["id"]]
    assert (await catalogue.client.get(f"{path}/runs")).json() == {"items": [], "next_cursor": None}
    assert (await catalogue.client.delete(path)).status_code == 204
    assert (await catalogue.client.get(f"{path}/versions")).status_code == 404


@pytest.mark.parametrize(
    ("graph", "place"),
    [
        (graph_with(1, agentId="nobody"), "graph.nodes[1].agent_id"),
        (graph_with(2, toolId="hammer"), "graph.nodes[2].tool_id"),
        (graph_with(1, type="wish"), "graph.nodes.1.type"),
        (graph_with(3, type="start"), "graph.nodes"),
        ({"nodes": []}, "graph.edges"),
    ],
)
async def test_what_keeps_a_graph_from_being_run_is_told_with_its_place(
    gateway: Gateway, graph: JSON, place: str
) -> None:
    await tell(gateway)
    judged = (await gateway.client.post("/api/workflows/validate", json={"graph": graph})).json()
    assert judged["valid"] is False
    assert place in [problem["place"] for problem in judged["problems"]]
    refused = await gateway.client.post("/api/workflows", json={"name": "W", "graph": graph})
    assert refused.status_code == 400
    assert f"body.{place}" in [error["place"] for error in refused.json()["errors"]]
    assert (await gateway.client.get("/api/workflows")).json()["items"] == []


async def test_a_graph_may_name_the_workspaces_own_tools(gateway: Gateway) -> None:
    await tell(gateway)
    tool = {"name": "weather", "type": "http", "config": {"url": "https://a.test/"}}
    made_tool = (await gateway.client.post("/api/tools", json=tool)).json()
    for name in ("weather", made_tool["id"]):
        judged = await gateway.client.post("/api/workflows/validate", json={"graph": graph_with(2, toolId=name)})
        assert judged.json() == {"valid": True, "problems": []}
