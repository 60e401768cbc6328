"""Every route beside what is another tenant's: made from the routes that there are, new ones included.

`pytest -s tests/gateway/test_tenants.py` prints the matrix.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from shared.types import JSON, Scope
from tests.gateway.support import Gateway
from tests.gateway.tenants import (
    Route,
    Tenant,
    body_ids,
    body_of,
    client_of,
    new_key,
    new_project,
    new_workspace,
    routes_of,
    status_of,
    tenant_of,
)
from tests.gateway.test_agents import tell

PUBLIC = {
    "/": "what is here",
    "/openapi.json": "the description",
    "/docs": "a page about it",
    "/docs-assets": "that page's files",
    "/redoc": "a page about it",
    "/health": "for load balancers",
    "/health/live": "for orchestrators",
    "/health/ready": "for orchestrators",
    "/session": "takes a one-time ticket",
}
"""Paths that ask nobody for a key, and why."""
NO_TENANTS: dict[str, str] = {}
"""Routes whose parameters name nothing of a tenant's."""
ALSO_REFUSED_TO_OWNERS = {
    "downloadFile": "the thread has no sandbox yet",
    "deleteWorkspace": "for the operator only",
    "deleteProject of a project": "not by those who are limited to it",
}
SHARED_BY_PROJECTS = {"agent_id", "message_id"}
"""The catalogue is the workspace's: projects group it, and hide none of it."""
LISTS_WITH_SEEDS = {"listThreads", "listProjects", "listKeys", "listWorkspaces", "listApprovals"} | {
    *("listTeams", "listTools", "listWorkflows", "listTasks"),
}
"""What the owner sees in the answers of these shows that the others would, too, if it were there."""
HIDDEN = {403, 404}


@dataclass
class Matrix:
    """What was found of each route; a wrong answer stands out."""

    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def note(self, route: Route, check: str, status: int, allowed: set[int]) -> None:
        self.rows.setdefault(f"{route.method} {route.path}", {})[check] = str(status)
        if status not in allowed:
            self.wrong.append(f"{route.name}, {check}: {status}")

    def show(self) -> str:
        checks = list(dict.fromkeys(check for row in self.rows.values() for check in row))
        head = f"{'':70}" + "".join(f"{check:>16}" for check in checks)
        lines = [
            f"{name:70}" + "".join(f"{row.get(check, '-'):>16}" for check in checks) for name, row in self.rows.items()
        ]
        return "\n".join(["", head, *lines])


@dataclass(frozen=True)
class Tenants:
    """`mine` and `theirs` are of two workspaces; `inside` and `beside` of two projects of a third."""

    mine: Tenant
    theirs: Tenant
    inside: Tenant
    beside: Tenant


@pytest.fixture
async def tenants(sql_gateway: Gateway) -> AsyncIterator[Tenants]:
    gateway = sql_gateway
    await tell(gateway)
    a, b, c = [await new_workspace(gateway, slug) for slug in ("a", "b", "c")]
    async with AsyncExitStack() as stack:
        mine, theirs = [await stack.enter_async_context(tenant_of(gateway, each)) for each in (a, b)]
        projects = [await new_project(gateway, c, name) for name in ("one", "two")]
        inside, beside = [await stack.enter_async_context(tenant_of(gateway, c, each)) for each in projects]
        yield Tenants(mine, theirs, inside, beside)


async def _described(gateway: Gateway) -> tuple[JSON, list[Route]]:
    schema: JSON = (await gateway.client.get("/openapi.json")).json()
    return schema, list(routes_of(gateway, schema))


async def test_each_route_asks_for_a_key_or_is_known_not_to(gateway: Gateway) -> None:
    schema, routes = await _described(gateway)
    assert {route.path for route in routes if route.scope is None} == PUBLIC.keys()
    described = {operation["operationId"] for item in schema["paths"].values() for operation in item.values()}
    assert described <= {route.name for route in routes}
    async with client_of(gateway, None) as nobody:
        for route in routes:
            if route.scope is not None:
                url = route.url(dict.fromkeys(route.own, "x"))
                status, _ = await status_of(nobody, route, url, **body_of(route, schema))
                assert status == 401, route


async def test_each_route_is_refused_without_its_scope(sql_gateway: Gateway, tenants: Tenants) -> None:
    gateway = sql_gateway
    schema, routes = await _described(gateway)
    workspace, seeds = tenants.mine.seeds["workspace_id"], tenants.mine.seeds
    matrix = Matrix()
    for scope in Scope:
        others = sorted(set(Scope) - {scope, Scope.ADMIN})
        key = await new_key(gateway, workspace, scopes=others)
        async with client_of(gateway, key) as client:
            for route in (each for each in routes if each.scope is scope):
                status, text = await status_of(client, route, route.url(seeds), **body_of(route, schema))
                matrix.note(route, f"without {scope}", status, {403})
                assert f"`{scope}`" in text
    print(matrix.show())
    assert not matrix.wrong


async def test_no_route_shows_or_changes_what_is_anothers(sql_gateway: Gateway, tenants: Tenants) -> None:
    schema, routes = await _described(sql_gateway)
    matrix = Matrix()
    # What ends something comes last: until then it must be there to be found.
    for route in sorted((each for each in routes if each.scope), key=lambda each: each.method == "DELETE"):
        judged = route.own or route.name in NO_TENANTS or route.parameters == []
        assert judged, f"{route.name} cannot be judged: say in NO_TENANTS why {route.parameters} are no tenant's"
        unknown = [name for name in route.own if name not in tenants.mine.seeds]
        assert not unknown, f"{route.name} cannot be judged: tests/gateway/tenants.py makes no {unknown}"
        await _judge(matrix, route, schema, pair=(tenants.mine, tenants.theirs), whose="workspace")
        await _judge(matrix, route, schema, pair=(tenants.inside, tenants.beside), whose="project")
    print(matrix.show())
    assert not matrix.wrong
    assert len(matrix.rows) == len([route for route in routes if route.scope])


async def _judge(matrix: Matrix, route: Route, schema: JSON, *, pair: tuple[Tenant, Tenant], whose: str) -> None:
    body, (mine, theirs) = body_of(route, schema), pair
    shared = SHARED_BY_PROJECTS if whose == "project" else set()
    foreign = {name: seed for name, seed in theirs.seeds.items() if mine.seeds[name] != seed and name not in shared}
    if "workspace_id" in foreign:
        selected = {"headers": {"X-Workspace-Id": theirs.seeds["workspace_id"]}, **body}
        status, _ = await status_of(mine.client, route, route.url(mine.seeds), **selected)
        matrix.note(route, "selected", status, {404})
    for name in route.query_ids(foreign):
        url = f"{route.url(mine.seeds)}?{name}={foreign[name]}"
        status, text = await status_of(mine.client, route, url, **body)
        filters = status == 200 and not route.own and not any(seed in text for seed in foreign.values())
        matrix.note(route, f"{whose} query", status, HIDDEN | ({200} if filters else set()))
    for name in body_ids(route, schema, foreign):
        asked = {"json": body["json"] | {name: foreign[name]}}
        status, _ = await status_of(mine.client, route, route.url(mine.seeds), **asked)
        matrix.note(route, f"{whose} body", status, HIDDEN)
    if set(route.own) & foreign.keys():
        status, _ = await status_of(mine.client, route, route.url(theirs.seeds), **body)
        matrix.note(route, f"other {whose}", status, HIDDEN)
        status, _ = await status_of(theirs.client, route, route.url(theirs.seeds), **body)
        if not {route.name, f"{route.name} of a {whose}"} & ALSO_REFUSED_TO_OWNERS.keys():
            matrix.note(route, f"{whose} owner", status, set(range(200, 600)) - HIDDEN - {400, 401})
    elif route.method == "GET":
        await _judge_list(matrix, route, pair, foreign)


async def _judge_list(matrix: Matrix, route: Route, pair: tuple[Tenant, Tenant], foreign: dict[str, str]) -> None:
    mine, theirs = pair
    status, text = await status_of(mine.client, route, route.url(mine.seeds))
    shown = [name for name, seed in foreign.items() if seed in text]
    matrix.note(route, "list", status, HIDDEN | {200})
    if shown:
        matrix.wrong.append(f"{route.name} shows another's {shown}")
    _, theirs_own = await status_of(theirs.client, route, route.url(theirs.seeds))
    if (
        route.name in LISTS_WITH_SEEDS
        and "workspace_id" in foreign
        and not any(s in theirs_own for s in foreign.values())
    ):
        matrix.wrong.append(f"{route.name} does not show its owner what is there")
