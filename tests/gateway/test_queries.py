"""Whatever a query says, it is answered in words: no value reaches a database that cannot take it."""

from collections.abc import AsyncIterator

import pytest

from tests.gateway.support import Gateway
from tests.gateway.tenants import Route, Tenant, new_workspace, routes_of, status_of, tenant_of
from tests.gateway.test_agents import tell

HOSTILE = ["a\0b", "9" * 300, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]


@pytest.fixture
async def owner(sql_gateway: Gateway) -> AsyncIterator[Tenant]:
    await tell(sql_gateway)
    async with tenant_of(sql_gateway, await new_workspace(sql_gateway, "acme")) as owner:
        yield owner


async def test_no_value_of_a_query_crashes(sql_gateway: Gateway, owner: Tenant) -> None:
    schema = sql_gateway.app.openapi()
    found = [route for route in routes_of(sql_gateway, schema) if route.method == "GET" and route.described]
    asked = [(route, name, value) for route in found for name in route.query for value in HOSTILE]
    crashed = [
        f"{route.name} {name}={value!r}" for route, name, value in asked if await crashes(owner, route, name, value)
    ]
    assert len(asked) > 100
    assert crashed == []


async def crashes(owner: Tenant, route: Route, name: str, value: str) -> bool:
    status, _ = await status_of(owner.client, route, route.url(owner.seeds), params={name: value})
    return status == 500
