"""A workflow as data: nodes and edges, what they must be alike for those who keep them and those who run them."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

from shared.errors import FieldError
from shared.types import JSON

NodeId = Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,64}$")]
Condition = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
MAX_NODES = 500
MAX_EDGES = 2000


class NodeType(StrEnum):
    START = "start"
    END = "end"
    AGENT = "agent"
    TOOL = "tool"
    BRANCH = "branch"
    HUMAN_APPROVAL = "human_approval"


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Node(Part):
    """`config`: what its type needs further, such as a prompt, arguments, instructions for a human."""

    id: NodeId
    type: NodeType
    label: str = Field(default="", max_length=200)
    agent_id: str | None = Field(default=None, validation_alias=AliasChoices("agent_id", "agentId"))
    tool_id: str | None = Field(
        default=None, validation_alias=AliasChoices("tool_id", "toolId"), description="A tool's id or name."
    )
    config: JSON = {}


class Edge(Part):
    id: NodeId
    from_node_id: NodeId = Field(validation_alias=AliasChoices("from_node_id", "fromNodeId"))
    to_node_id: NodeId = Field(validation_alias=AliasChoices("to_node_id", "toNodeId"))
    condition: Condition | None = Field(
        default=None, description="Of a branch's edge: when it is taken. The one without is taken when no other is."
    )


class Graph(Part):
    nodes: Annotated[list[Node], Field(max_length=MAX_NODES)]
    edges: Annotated[list[Edge], Field(max_length=MAX_EDGES)]

    def problems(self) -> list[FieldError]:
        """All that keeps it from being run, each with its place; empty: it can be."""
        found = [*_twice("nodes", (node.id for node in self.nodes)), *_twice("edges", (edge.id for edge in self.edges))]
        found += self._dangling()
        if found:  # what follows would only say the same in other words
            return found
        found = [*self._ends(), *self._named(), *self._branches()]
        return found or [*self._cycles(), *self._unconnected()]

    def named_agents(self) -> dict[str, str]:
        """Place in the graph -> the agent's id."""
        return {_at("nodes", n, "agent_id"): node.agent_id for n, node in enumerate(self.nodes) if node.agent_id}

    def named_tools(self) -> dict[str, str]:
        """Place in the graph -> the tool's id or name."""
        return {_at("nodes", n, "tool_id"): node.tool_id for n, node in enumerate(self.nodes) if node.tool_id}

    def _dangling(self) -> Iterator[FieldError]:
        known = {node.id for node in self.nodes}
        for number, edge in enumerate(self.edges):
            for name, end in (("from_node_id", edge.from_node_id), ("to_node_id", edge.to_node_id)):
                if end not in known:
                    yield FieldError(place=_at("edges", number, name), detail=f"there is no node {end}")

    def _ends(self) -> Iterator[FieldError]:
        types = [node.type for node in self.nodes]
        if (starts := types.count(NodeType.START)) != 1:
            yield FieldError(place="nodes", detail=f"has {starts} start nodes; a workflow has one")
        if NodeType.END not in types:
            yield FieldError(place="nodes", detail="has no end node")
        of = {node.id: node.type for node in self.nodes}
        for number, edge in enumerate(self.edges):
            if of[edge.to_node_id] is NodeType.START:
                yield FieldError(place=_at("edges", number), detail="leads back to the start")
            if of[edge.from_node_id] is NodeType.END:
                yield FieldError(place=_at("edges", number), detail="leads out of an end")

    def _named(self) -> Iterator[FieldError]:
        """Agent nodes name an agent and tool nodes a tool; no others do."""
        for number, node in enumerate(self.nodes):
            for kind, name, given in (
                (NodeType.AGENT, "agent_id", node.agent_id),
                (NodeType.TOOL, "tool_id", node.tool_id),
            ):
                if (node.type is kind) != (given is not None):
                    detail = "is missing" if given is None else f"is not for nodes of type {node.type}"
                    yield FieldError(place=_at("nodes", number, name), detail=detail)

    def _branches(self) -> Iterator[FieldError]:
        branches = {node.id for node in self.nodes if node.type is NodeType.BRANCH}
        for number, node in enumerate(self.nodes):
            out = [edge for edge in self.edges if edge.from_node_id == node.id]
            if node.id in branches and sum(edge.condition is None for edge in out) > 1:
                detail = "has two edges without a condition; one is taken when no other is"
                yield FieldError(place=_at("nodes", number), detail=detail)
        for number, edge in enumerate(self.edges):
            if edge.condition is not None and edge.from_node_id not in branches:
                yield FieldError(place=_at("edges", number, "condition"), detail="is for edges out of a branch")

    def _cycles(self) -> Iterator[FieldError]:
        before: dict[str, set[str]] = {node.id: set() for node in self.nodes}
        for edge in self.edges:
            before[edge.to_node_id].add(edge.from_node_id)
        try:
            TopologicalSorter(before).prepare()
        except CycleError as error:
            yield FieldError(place="edges", detail=f"go round: {' -> '.join(reversed(error.args[1]))}")

    def _unconnected(self) -> Iterator[FieldError]:
        start = {node.id for node in self.nodes if node.type is NodeType.START}
        ends = {node.id for node in self.nodes if node.type is NodeType.END}
        reached = _reach(start, [(edge.from_node_id, edge.to_node_id) for edge in self.edges])
        ending = _reach(ends, [(edge.to_node_id, edge.from_node_id) for edge in self.edges])
        for number, node in enumerate(self.nodes):
            if node.id not in reached:
                yield FieldError(place=_at("nodes", number), detail="cannot be reached from the start")
            elif node.id not in ending:
                yield FieldError(place=_at("nodes", number), detail="leads to no end")


def _reach(first: set[str], ways: list[tuple[str, str]]) -> set[str]:
    onward: dict[str, list[str]] = {}
    for begin, end in ways:
        onward.setdefault(begin, []).append(end)
    reached, new = set(first), list(first)
    while new:
        fresh = [node for node in onward.get(new.pop(), []) if node not in reached]
        reached.update(fresh)
        new += fresh
    return reached


def _twice(part: str, ids: Iterable[str]) -> Iterator[FieldError]:
    seen: set[str] = set()
    for number, each in enumerate(ids):
        if each in seen:
            yield FieldError(place=_at(part, number, "id"), detail=f"{each} is the id of another one too")
        seen.add(each)


def _at(part: str, number: int, *field: Any) -> str:
    return ".".join((f"{part}[{number}]", *field))
