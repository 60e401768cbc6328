"""What is open when its link ends ends with it, by its time or because somebody ended it."""

import asyncio
import time

import httpx
import pytest
from wsproto.events import AcceptConnection, CloseConnection

from gateway.sandboxes import origins
from shared import links
from shared.ids import new_thread_id
from shared.threads.types import NewThread
from tests.gateway.sandboxes.test_pages import PORT, Site, site, socket_to
from tests.gateway.support import Gateway

__all__ = ["site"]

SECONDS = 3


async def brief(site: Site, seconds: int = SECONDS) -> str:
    return (await links.issue(site.gateway.redis, site.thread_id, PORT, seconds=seconds)).ticket


async def end_links(site: Site) -> httpx.Response:
    return await site.gateway.client.delete(f"/api/agent/{site.thread_id}/ports/{PORT}/links")


async def test_a_websocket_is_closed_with_a_reason_when_its_link_ends(site: Site) -> None:
    began = time.monotonic()
    async with socket_to(site, await brief(site)) as (socket, accepted):
        assert isinstance(accepted, AcceptConnection)
        closed = await socket.event()
    assert isinstance(closed, CloseConnection)
    assert (closed.code, closed.reason) == (1008, "This link has ended.")
    assert time.monotonic() - began > SECONDS - 1


async def test_an_answer_under_way_is_cut_when_its_link_ends(site: Site) -> None:
    cookie = {"Cookie": f"trunkline_port={await brief(site)}"}
    async with site.browser() as client, client.stream("GET", "/stream", headers=cookie) as answer:
        with pytest.raises(httpx.RemoteProtocolError):
            await answer.aread()


async def test_an_answer_that_has_not_begun_when_its_link_ends_is_403(site: Site) -> None:
    cookie = {"Cookie": f"trunkline_port={await brief(site)}"}
    async with site.browser() as client:
        answer = await client.get("/never", headers=cookie)
    assert (answer.status_code, "This link has ended." in answer.text) == (403, True)


async def test_what_is_open_goes_on_as_long_as_a_port_is_public_anew(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origins, "LOOK_SECONDS", 0.05)
    await links.issue(site.gateway.redis, site.thread_id, PORT, seconds=SECONDS, public=True)
    async with socket_to(site, "none") as (socket, accepted):
        assert isinstance(accepted, AcceptConnection)
        await links.issue(site.gateway.redis, site.thread_id, PORT, seconds=60, public=True)
        closing = asyncio.create_task(socket.event())
        await asyncio.wait([closing], timeout=SECONDS + 0.5)
        assert not closing.done()
        await end_links(site)
        assert isinstance(await closing, CloseConnection)


async def test_links_that_somebody_ends_lead_nowhere_and_close_what_is_open(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origins, "LOOK_SECONDS", 0.05)
    await site.link(public=True)
    async with site.visitor() as visitor, socket_to(site, await brief(site, 600)) as (socket, _):
        answer = await end_links(site)
        assert (answer.status_code, answer.content) == (204, b"")
        assert (await visitor.get("/")).status_code == 403
        closed = await socket.event()
        assert isinstance(closed, CloseConnection)
        assert closed.code == 1008
    async with site.browser() as stranger:
        assert (await stranger.get("/")).status_code == 401
    async with site.visitor() as visitor:
        assert (await visitor.get("/")).status_code == 200


async def test_links_of_others_cannot_be_ended(gateway: Gateway) -> None:
    foreign = new_thread_id()
    await gateway.store.create_thread(NewThread(foreign, "somebody-else"))
    link = await links.issue(gateway.redis, foreign, PORT, seconds=60)
    path = f"/api/agent/{foreign}/ports/{PORT}/links"
    assert (await gateway.client.delete(path)).status_code == 404
    async with httpx.AsyncClient(base_url=gateway.client.base_url) as stranger:
        assert (await stranger.delete(path)).status_code == 401
    assert await links.seconds_left(gateway.redis, foreign, PORT, link.ticket) > 0
