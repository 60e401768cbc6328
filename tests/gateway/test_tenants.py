"""Every route and WebSocket beside what is another tenant's: made from those that there are, new ones included.

`pytest -s tests/gateway/test_tenants.py` prints the matrix.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from gateway.openapi import sockets_of
from shared.types import JSON, Scope
from tests.gateway.support import Gateway
from tests.gateway.tenants import (
    Route,
    Tenant,
    body_fields,
    body_of,
    client_of,
    fields_with,
    ids_among,
    new_key,
    new_project,
    new_workspace,
    routes_of,
    status_of,
    tenant_of,
    unknown_ids,
)
from tests.gateway.test_agents import tell
from tests.gateway.websockets import websocket

PUBLIC = {
    "/": "what is here",
    "/openapi.json": "the description",
    "/docs": "a page about it",
    "/docs-assets": "that page's files",
    "/redoc": "a page about it",
    "/health": "for load balancers",
    "/health/live": "for orchestrators",
    "/health/ready": "for orchestrators",
    "/metrics": "asks for `metrics.token`, where there is one",
    "/session": "takes a one-time ticket",
    "/api/session": "takes a key, in the body if need be; signing out needs none",
}
"""Paths that ask nobody for a key, and why."""
NO_TENANTS: dict[str, str] = {}
"""Routes whose parameters name nothing of a tenant's."""
ALSO_REFUSED_TO_OWNERS = {
    "downloadFile": "the thread has no sandbox yet",
    "deleteWorkspace": "for the operator only",
    "deleteProject of a project": "not by those who are limited to it",
}
LISTS_WITH_SEEDS = {
    *("listThreads", "listRuns", "listApprovals", "listAgents"),
    *("listTeams", "listTools", "listWorkflows", "listTasks"),
    *("listProjects", "listKeys", "listWorkspaces"),
}
"""What the owner sees in the answers of these shows that the others would, too, if it were there."""
SAYS_MORE = {"chat": 501, "streamFlow": 400}
"""Where what is not there is said in another way: no such agent; a name of the tenant's own is needed."""
HIDDEN = {403, 404}
ANSWERED = set(range(101, 600)) - HIDDEN - {400, 401}


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
        answers = sum(len(row) for row in self.rows.values())
        return "\n".join(["", head, *lines, f"{len(self.rows)} routes, {len(checks)} checks, {answers} answers"])


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
                assert f"`{scope}`" in text, route
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
        unknown += unknown_ids([*route.query, *body_fields(route, schema)], tenants.mine.seeds)
        assert not unknown, f"{route.name} cannot be judged: tests/gateway/tenants.py makes no {unknown}"
        await _judge(matrix, route, schema, pair=(tenants.mine, tenants.theirs), whose="workspace")
        await _judge(matrix, route, schema, pair=(tenants.inside, tenants.beside), whose="project")
    print(matrix.show())
    assert not matrix.wrong
    assert len(matrix.rows) == len([route for route in routes if route.scope])


async def _judge(matrix: Matrix, route: Route, schema: JSON, *, pair: tuple[Tenant, Tenant], whose: str) -> None:
    mine, theirs = pair
    body = body_of(route, schema, mine.seeds)
    foreign = {name: seed for name, seed in theirs.seeds.items() if mine.seeds[name] != seed}
    hidden = HIDDEN | {SAYS_MORE.get(route.name, 404)}
    if "workspace_id" in foreign:
        selected = {"headers": {"X-Workspace-Id": theirs.seeds["workspace_id"]}, **body}
        status, _ = await status_of(mine.client, route, route.url(mine.seeds), **selected)
        matrix.note(route, "selected", status, {404})
    for name, seed in ids_among(route.query, foreign).items():
        url = f"{route.url(mine.seeds)}?{name}={seed}"
        status, text = await status_of(mine.client, route, url, **body)
        filters = status == 200 and not route.own and not any(seed in text for seed in foreign.values())
        matrix.note(route, f"{whose} query", status, hidden | ({200} if filters else set()))
    for name, seed in ids_among(body_fields(route, schema), foreign).items():
        asked = {"json": body["json"] | fields_with({name: seed})}
        status, text = await status_of(mine.client, route, route.url(mine.seeds), **asked)
        told = status == 400 and seed in text and "there is no" in text.lower()
        matrix.note(route, f"{whose} body", status, hidden | ({400} if told else set()))
    if set(route.own) & foreign.keys():
        status, _ = await status_of(mine.client, route, route.url(theirs.seeds), **body)
        matrix.note(route, f"other {whose}", status, HIDDEN)
        for name in set(route.own) & foreign.keys() if len(route.own) > 1 else ():
            status, _ = await status_of(mine.client, route, route.url(mine.seeds | {name: foreign[name]}), **body)
            matrix.note(route, f"{whose} mixed", status, HIDDEN)
        body = body_of(route, schema, theirs.seeds)
        status, _ = await status_of(theirs.client, route, route.url(theirs.seeds), **body)
        gone = route.method == "DELETE" and not route.path.startswith("/api/")  # by its other name, just now
        if not gone and not {route.name, f"{route.name} of a {whose}"} & ALSO_REFUSED_TO_OWNERS.keys():
            matrix.note(route, f"{whose} owner", status, ANSWERED)
    elif route.method in ("GET", "WS"):
        await _judge_list(matrix, route, pair, foreign)


async def _judge_list(matrix: Matrix, route: Route, pair: tuple[Tenant, Tenant], foreign: dict[str, str]) -> None:
    mine, theirs = pair
    status, text = await status_of(mine.client, route, route.url(mine.seeds))
    shown = [name for name, seed in foreign.items() if seed in text]
    matrix.note(route, "list", status, HIDDEN | {200, 101, SAYS_MORE.get(route.name, 200)})
    if shown:
        matrix.wrong.append(f"{route.name} shows another's {shown}")
    _, theirs_own = await status_of(theirs.client, route, route.url(theirs.seeds))
    if (
        route.name in LISTS_WITH_SEEDS
        and "workspace_id" in foreign
        and not any(s in theirs_own for s in foreign.values())
    ):
        matrix.wrong.append(f"{route.name} does not show its owner what is there")


async def test_every_websocket_is_among_the_routes(gateway: Gateway) -> None:
    _, routes = await _described(gateway)
    sockets = {socket["path"] for socket in sockets_of(gateway.app) if not socket["path"].startswith("/api/v1/")}
    assert {route.path for route in routes if route.method == "WS"} == sockets != set()


async def test_no_socket_that_names_nothing_tells_of_anothers(sql_gateway: Gateway, tenants: Tenants) -> None:
    _, routes = await _described(sql_gateway)
    whole = [route for route in routes if route.method == "WS" and not route.own]
    for route in whole:
        for mine, theirs in ((tenants.mine, tenants.theirs), (tenants.inside, tenants.beside)):
            async with websocket(sql_gateway, route.url({}), {"x-api-key": mine.key}) as client:
                for tenant in (theirs, mine):
                    path = f"/api/agents/{tenant.seeds['agent_id']}/messages"
                    assert (await tenant.client.post(path, json={"content": "x"})).status_code == 201
                told = await client.until(type="event")
                assert told["data"]["agent_id"] == mine.seeds["agent_id"]
    assert whole


async def test_a_flows_name_is_its_tenants(sql_gateway: Gateway, tenants: Tenants) -> None:
    pair = {"flowUuid": "f", "flowInputUuid": "i"}
    for mine, theirs in ((tenants.mine, tenants.theirs), (tenants.inside, tenants.beside)):
        opened = await theirs.client.post("/api/agent/initiate", json=pair)
        thread = opened.json()["thread_id"]
        assert (await theirs.client.post(f"/api/agent/{thread}/execute", json={"task": "x"})).status_code == 200
        firsts = []
        for tenant in (mine, theirs):
            headers = {"authorization": f"Bearer {tenant.key}"}
            async with sql_gateway.stream("/api/agent/event-stream?flowUuid=f&flowInputUuid=i", headers) as stream:
                firsts += [frame.event for frame in await stream.frames(1)]
        assert firsts == ["waiting", "task_agent_execute"]


async def test_a_link_to_a_sandbox_opens_no_other(sql_gateway: Gateway, tenants: Tenants) -> None:
    for mine, theirs in ((tenants.mine, tenants.theirs), (tenants.inside, tenants.beside)):
        thread, others = mine.seeds["thread_id"], theirs.seeds["thread_id"]
        link = (await mine.client.post(f"/api/agent/{thread}/ports/8080/links", json={})).json()["url"]
        ticket = link.partition("?ticket=")[2]
        statuses = []
        for sandbox, query in ((thread, f"?ticket={ticket}"), (others, f"?ticket={ticket}"), (others, "")):
            headers = {"host": f"8080-{sandbox}.localhost:{sql_gateway.port}"}
            async with client_of(sql_gateway, mine.key) as client:  # which has no cookie of another
                statuses.append((await client.get(f"/{query}", headers=headers)).status_code)
        assert statuses == [303, 403, 401]
