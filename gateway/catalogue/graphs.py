"""A workflow's graph, judged with the workspace that it is for."""

from pydantic import ValidationError

from gateway.auth import Principal
from gateway.catalogue.tools import tools_named
from gateway.deps import Services
from gateway.errors import field_error, invalid
from shared.db import agents
from shared.errors import FieldError
from shared.graph import Graph
from shared.types import JSON
from shared.workers.catalogue import told_catalogue


async def graph_problems(services: Services, caller: Principal, given: JSON) -> tuple[Graph | None, list[FieldError]]:
    """All that keeps it from being run, each with its place; the graph, where it can be read."""
    try:
        graph = Graph.model_validate(given)
    except ValidationError as error:
        return None, [field_error({**item, "loc": ("graph", *item["loc"])}) for item in error.errors()]
    found = graph.problems() or await _unknown(services, caller, graph)
    return graph, [FieldError(place=f"graph.{each['place']}", detail=each["detail"]) for each in found]


async def check_graph(services: Services, caller: Principal, given: JSON) -> JSON:
    """The graph in our words. Raises AppError INVALID_REQUEST."""
    graph, problems = await graph_problems(services, caller, given)
    if problems or graph is None:
        raise invalid([FieldError(place=f"body.{each['place']}", detail=each["detail"]) for each in problems])
    return graph.model_dump(mode="json")


async def _unknown(services: Services, caller: Principal, graph: Graph) -> list[FieldError]:
    """What its nodes name, and the workspace has not."""
    named_agents, named_tools = graph.named_agents(), graph.named_tools()
    told = await told_catalogue(services.redis)
    kinds = {card.id for card in told.definitions} if told else set()
    async with services.db.connect() as c:
        missing = {*await agents.missing(c, caller.tenant, named_agents.values())} - kinds
    unknown = {*(await tools_named(services, caller, [*named_tools.values()])).unknown}
    return [
        *_not_there(named_agents, missing, "there is no agent {}, and no kind of agents"),
        *_not_there(named_tools, unknown, "there is no tool {} that agents are given"),
    ]


def _not_there(named: dict[str, str], missing: set[str], detail: str) -> list[FieldError]:
    return [
        FieldError(place=place, detail=detail.format(each[:100])) for place, each in named.items() if each in missing
    ]
