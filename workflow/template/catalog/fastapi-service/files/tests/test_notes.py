"""The service over HTTP, without a server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx

from app.main import TITLE, create_app

T = TypeVar("T")


def with_client(use: Callable[[httpx.AsyncClient], Awaitable[T]]) -> T:
    """What `use` returns, with a client of a fresh application."""

    async def run() -> T:
        transport = httpx.ASGITransport(create_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await use(client)

    return asyncio.run(run())


def test_it_is_healthy() -> None:
    answer = with_client(lambda client: client.get("/health"))
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_its_documentation_bears_its_title() -> None:
    answer = with_client(lambda client: client.get("/openapi.json"))
    assert answer.json()["info"]["title"] == TITLE


def test_a_note_that_was_added_is_found() -> None:
    async def add_and_look(client: httpx.AsyncClient) -> None:
        added = await client.post("/notes", json={"text": "Buy milk"})
        assert added.status_code == 201
        found = await client.get(f"/notes/{added.json()['id']}")
        assert found.json() == added.json() == {"id": 1, "text": "Buy milk"}
        assert (await client.get("/notes")).json() == [found.json()]

    with_client(add_and_look)


def test_an_empty_note_is_refused_and_an_unknown_one_not_found() -> None:
    assert with_client(lambda client: client.post("/notes", json={"text": ""})).status_code == 422
    assert with_client(lambda client: client.get("/notes/7")).status_code == 404
