from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.graph import Graph


def graph(nodes: dict[str, Any], edges: list[tuple[str, ...]]) -> Graph:
    """`nodes`: id -> type, or its fields. `edges`: from, to, and a condition if there is one."""
    fields = {name: kind if isinstance(kind, dict) else {"type": kind} for name, kind in nodes.items()}
    return Graph.model_validate(
        {
            "nodes": [{"id": name, **each} for name, each in fields.items()],
            "edges": [
                {"id": f"e{number}", "fromNodeId": edge[0], "toNodeId": edge[1], "condition": (*edge, None)[2]}
                for number, edge in enumerate(edges)
            ],
        }
    )


ENDS = {"s": "start", "e": "end"}
AGENT = {"type": "agent", "agentId": "a1"}


def places(found: Graph) -> list[str]:
    return [f"{problem['place']}: {problem['detail']}" for problem in found.problems()]


def test_a_graph_of_every_kind_of_node_can_be_run() -> None:
    nodes = {
        **ENDS,
        "a": AGENT,
        "t": {"type": "tool", "tool_id": "bash"},
        "b": "branch",
        "h": "human_approval",
    }
    edges: list[tuple[str, ...]] = [("s", "a"), ("a", "b"), ("b", "t", "x > 1"), ("b", "h"), ("t", "e"), ("h", "e")]
    found = graph(nodes, edges)
    assert found.problems() == []
    assert found.named_agents() == {"nodes[2].agent_id": "a1"}
    assert found.named_tools() == {"nodes[3].tool_id": "bash"}


@pytest.mark.parametrize(
    ("nodes", "edges", "expected"),
    [
        ({"e": "end"}, [], "nodes: has 0 start nodes; a workflow has one"),
        ({"s": "start", "s2": "start", "e": "end"}, [], "nodes: has 2 start nodes; a workflow has one"),
        ({"s": "start"}, [], "nodes: has no end node"),
        (ENDS, [("s", "x")], "edges[0].to_node_id: there is no node x"),
        (ENDS, [("s", "e"), ("e", "e")], "edges[1]: leads out of an end"),
        ({**ENDS, "a": AGENT}, [("s", "a"), ("a", "s")], "edges[1]: leads back to the start"),
        ({**ENDS, "a": "agent"}, [("s", "a"), ("a", "e")], "nodes[2].agent_id: is missing"),
        ({**ENDS, "t": "tool"}, [("s", "t"), ("t", "e")], "nodes[2].tool_id: is missing"),
        (
            {**ENDS, "h": {"type": "human_approval", "agent_id": "a1"}},
            [("s", "h"), ("h", "e")],
            "nodes[2].agent_id: is not for nodes of type human_approval",
        ),
        (ENDS, [("s", "e", "x > 1")], "edges[0].condition: is for edges out of a branch"),
        (
            {**ENDS, "b": "branch"},
            [("s", "b"), ("b", "e"), ("b", "e")],
            "nodes[2]: has two edges without a condition; one is taken when no other is",
        ),
        (
            {**ENDS, "a": AGENT, "b": AGENT},
            [("s", "a"), ("a", "b"), ("b", "a"), ("b", "e")],
            "edges: go round: a -> b -> a",
        ),
        ({**ENDS, "a": AGENT}, [("s", "e"), ("a", "e")], "nodes[2]: cannot be reached from the start"),
        ({**ENDS, "a": AGENT}, [("s", "e"), ("s", "a")], "nodes[2]: leads to no end"),
    ],
)
def test_what_cannot_be_run_is_told_with_its_place(
    nodes: dict[str, Any], edges: list[tuple[str, ...]], expected: str
) -> None:
    assert expected in places(graph(nodes, edges))


def test_ids_are_given_once() -> None:
    twice = {"nodes": [{"id": "s", "type": "start"}, {"id": "s", "type": "end"}], "edges": []}
    assert places(Graph.model_validate(twice)) == ["nodes[1].id: s is the id of another one too"]


def test_a_field_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValidationError, match="agentid"):
        Graph.model_validate({"nodes": [{"id": "a", "type": "agent", "agentid": "a1"}], "edges": []})


@st.composite
def layered(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str]]]:
    """Nodes in a line, each with an edge from some earlier and to some later one, and further edges forward."""
    names = [f"n{number}" for number in range(draw(st.integers(1, 12)))]
    line = ["s", *names, "e"]
    edges = {("s", "e")}
    for place, name in enumerate(names, 1):
        edges.add((line[draw(st.integers(0, place - 1))], name))
        edges.add((name, line[draw(st.integers(place + 1, len(line) - 1))]))
    return names, sorted(edges)


@given(layered(), st.data())
def test_edges_forward_can_be_run_and_one_back_goes_round(
    drawn: tuple[list[str], list[tuple[str, str]]], data: st.DataObject
) -> None:
    names, edges = drawn
    nodes = {**ENDS, **dict.fromkeys(names, AGENT)}
    assert graph(nodes, list(edges)).problems() == []
    inner = [edge for edge in edges if edge[0] in names and edge[1] in names]
    if inner:
        begin, end = data.draw(st.sampled_from(inner))
        assert "go round" in places(graph(nodes, [*edges, (end, begin)]))[0]
