"""Whatever a request says, it is answered in words: no value reaches a database that cannot take it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.config import DatabaseSettings
from shared.types import JSON
from tests.gateway.support import Gateway, serving, settings_for
from tests.gateway.tenants import Route, Tenant, body_fields, body_of, new_workspace, routes_of, tenant_of
from tests.gateway.test_agents import tell
from tests.support.databases import PostgresDatabases

IN_QUERIES = ["a\0b", "9" * 300, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]
IN_BODIES = ["a\0b", ["a\0b"], {"a\0b": 1}, {"k": ["a\0b"]}, {"tools": ["a\0b"]}, 10**30]

Request = tuple[Route, str, dict[str, Any]]
"""With its address, and arguments of httpx."""


@pytest.fixture
async def gateway(redis_url: str, tmp_path: Path, postgres_databases: PostgresDatabases) -> AsyncIterator[Gateway]:
    """On Postgres, which takes less than SQLite."""
    database = DatabaseSettings(url=await postgres_databases.new())  # type: ignore[arg-type]
    async with serving(settings_for(redis_url, tmp_path, database=database)) as gateway:
        yield gateway


@pytest.fixture
async def owner(gateway: Gateway) -> AsyncIterator[Tenant]:
    await tell(gateway)
    async with tenant_of(gateway, await new_workspace(gateway, "acme")) as owner:
        yield owner


async def test_no_value_crashes_wherever_it_stands(gateway: Gateway, owner: Tenant) -> None:
    schema = gateway.app.openapi()
    routes = [each for each in routes_of(gateway, schema) if each.method != "WS" and each.described]
    asked = [request for route in routes for request in requests(route, schema, owner.seeds)]
    assert len(asked) > 1000
    crashed = []
    for route, url, arguments in asked:
        async with owner.client.stream(route.method, url, **arguments) as answer:
            if answer.status_code == 500:
                crashed.append(f"{route.name} {url} {arguments}")
    assert crashed == []


def requests(route: Route, schema: JSON, seeds: dict[str, str]) -> Iterator[Request]:
    url, body = route.url(seeds), body_of(route, schema, seeds)
    for name in route.parameters:
        yield route, route.url(seeds | {name: "a%00b"}), body
    if route.method == "GET":
        yield from ((route, url, {"params": {name: value}}) for name in route.query for value in IN_QUERIES)
    if "json" in body:
        for name in body_fields(route, schema):
            yield from ((route, url, {"json": body["json"] | {name: value}}) for value in IN_BODIES)
