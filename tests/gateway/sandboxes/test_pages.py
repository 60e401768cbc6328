"""What a sandbox serves, as a browser with a link sees it."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    RejectConnection,
    Request,
    TextMessage,
)

from shared import links
from shared.config import ApiSettings, SandboxSettings
from shared.ids import new_thread_id
from shared.threads.types import NewThread
from tests.gateway.support import KEY, Gateway, serving, settings_for
from tests.workflow.sandbox.support import Box, Host
from workflow.sandbox.local import LocalProvider

SERVER = (Path(__file__).parent / "server_inside.py").read_bytes()
PORT = 8080


class Site:
    """A server in a thread's sandbox, and browsers that visit it through the gateway."""

    def __init__(self, gateway: Gateway, box: Box, thread_id: str) -> None:
        self.gateway = gateway
        self.box = box
        self.thread_id = thread_id
        self.host = f"{PORT}-{thread_id}.localhost:{gateway.port}"

    async def link(self, **body: object) -> str:
        """Path and query of a link."""
        answer = await self.gateway.client.post(f"/api/agent/{self.thread_id}/ports/{PORT}/links", json=body)
        assert answer.status_code == 200, answer.text
        parts = urlsplit(answer.json()["url"])
        return f"{parts.path}?{parts.query}"

    def browser(self, host: str | None = None) -> httpx.AsyncClient:
        """Names under localhost are not in every resolver; the Host header is what counts."""
        url = f"http://127.0.0.1:{self.gateway.port}"
        return httpx.AsyncClient(base_url=url, headers={"Host": host or self.host}, timeout=30)

    @asynccontextmanager
    async def visitor(self) -> AsyncIterator[httpx.AsyncClient]:
        """One who came in by a link."""
        async with self.browser() as client:
            assert (await client.get(await self.link())).status_code == 303
            yield client


@pytest.fixture
async def site(gateway: Gateway, host: Host) -> AsyncIterator[Site]:
    async with site_of(gateway, host) as site:
        yield site


@asynccontextmanager
async def site_of(gateway: Gateway, host: Host) -> AsyncIterator[Site]:
    thread_id = await gateway.thread()
    provider = LocalProvider(host.settings)
    box = Box(await provider.acquire(thread_id, None), thread_id)
    await gateway.client.put(f"/api/agent/{thread_id}/files/server.py", content=SERVER)
    task = await box.run(f"exec python3 server.py {PORT}", background=True)
    async with asyncio.timeout(10):
        while PORT not in await box.sandbox.ports():
            await asyncio.sleep(0.02)
    yield Site(gateway, box, thread_id)
    await box.kill(task)
    await provider.close()


async def test_a_link_leads_to_the_page_by_a_cookie_of_that_origin_alone(site: Site) -> None:
    async with site.browser() as client:
        entry = await client.get("/deep//path", params={"a": "1 2", "ticket": (await site.link()).partition("=")[2]})
        assert (entry.status_code, entry.headers["location"]) == (303, "/deep//path?a=1+2")
        cookie = entry.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "Path=/" in cookie
        assert "Domain" not in cookie
        page = await client.get(entry.headers["location"])
    assert (page.status_code, page.json()["path"]) == (200, "/deep//path?a=1+2")
    assert page.headers["content-type"] == "text/html"
    assert "content-security-policy" not in page.headers


async def test_credentials_stay_outside_and_the_pages_own_cookies_go_through(site: Site) -> None:
    async with site.visitor() as client:
        ticket = next(iter(client.cookies.jar)).value
        headers = {
            "Authorization": f"Bearer {KEY}",
            "X-API-Key": KEY,
            "X-Forwarded-For": "1.2.3.4",
            "Connection": "x-hop",
        }
        headers |= {
            "X-Hop": "1",
            "Cookie": f"own=1; trunkline_port={ticket}; trunkline_12345678=session; b=2",
            "X-Own": "2",
        }
        seen = (await client.get("/", headers=headers)).json()["headers"]
        set_by_page = (await client.get("/cookies")).headers.get_list("set-cookie")
    assert seen["cookie"] == "own=1; b=2"
    assert (seen["host"], seen["x-forwarded-host"], seen["x-own"]) == (site.host, site.host, "2")
    assert not {"authorization", "x-api-key", "x-forwarded-for", "x-hop"} & seen.keys()
    assert KEY not in str(seen)
    assert set_by_page == ["own=1; Path=/"]


async def test_without_a_ticket_401_and_with_a_wrong_one_403(site: Site, gateway: Gateway) -> None:
    other = await links.issue(gateway.redis, site.thread_id, PORT + 1, seconds=60)
    async with site.browser() as client:
        answer = await client.get("/")
        assert (answer.status_code, answer.headers["content-type"]) == (401, "text/plain; charset=utf-8")
        for ticket in ("forged", other.ticket, "é", "a" * 5000):
            assert (await client.get("/", params={"ticket": ticket})).status_code == 403
            cookie = [(b"Cookie", f"trunkline_port={ticket}".encode())]
            assert (await client.get("/", headers=cookie)).status_code == 403


async def test_a_link_ends_when_it_says(site: Site, gateway: Gateway) -> None:
    async with site.visitor() as client:
        assert (await client.get("/")).status_code == 200
        for key in await gateway.redis.keys("port-link:*"):
            await gateway.redis.pexpire(key, 1)
        async with asyncio.timeout(5):
            while (await client.get("/")).status_code != 403:
                await asyncio.sleep(0.01)


async def test_only_a_port_that_was_made_public_needs_no_ticket(site: Site) -> None:
    async with site.browser() as client:
        await site.link()
        assert (await client.get("/")).status_code == 401
        await site.link(public=True)
        assert (await client.get("/")).status_code == 200


async def test_the_api_is_not_on_the_origin_of_a_sandbox_nor_its_cookie_on_the_apis(site: Site) -> None:
    async with site.visitor() as client:
        for path in ("/api/agent", "/health", "/session?ticket=x"):
            assert (await client.get(path)).json()["path"] == path
        cookie = {"Cookie": "; ".join(f"{each.name}={each.value}" for each in client.cookies.jar)}
    async with site.browser(f"localhost:{site.gateway.port}") as client:
        assert (await client.get("/api/agent", headers=cookie)).status_code == 401


async def test_the_page_of_one_sandbox_cannot_use_a_visitors_cookie_for_another(site: Site) -> None:
    foreign = f"http://8080-{new_thread_id()}.localhost:{site.gateway.port}"
    async with site.visitor() as client:
        for headers in (
            {"Origin": foreign},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
        ):
            assert (await client.get("/", headers=headers)).status_code == 403, headers
        post = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}
        assert (await client.post("/", content=b"", headers=post)).status_code == 403
        for headers in (post, {"Origin": f"http://{site.host}"}, {"Sec-Fetch-Site": "same-origin"}):
            assert (await client.get("/", headers=headers)).status_code == 200


async def test_whoever_is_signed_in_is_led_to_the_origin(site: Site) -> None:
    for prefix in ("", "/api", "/api/v1"):
        answer = await site.gateway.client.get(f"{prefix}/sandboxes/{site.thread_id}/{PORT}/a/b?c=d")
        assert answer.status_code == 303
        to = urlsplit(answer.headers["location"])
        assert (to.hostname, to.path) == (site.host.partition(":")[0], "/a/b")
        async with site.browser() as client:
            entry = await client.get(f"{to.path}?{to.query}")
            assert entry.headers["location"] == "/a/b?c=d"


async def test_there_are_no_links_to_threads_of_others(gateway: Gateway) -> None:
    foreign = new_thread_id()
    await gateway.store.create_thread(NewThread(foreign, "somebody-else"))
    for thread_id in (foreign, new_thread_id(), "nope"):
        assert (await gateway.client.get(f"/sandboxes/{thread_id}/80/")).status_code == 404
        assert (await gateway.client.post(f"/api/agent/{thread_id}/ports/80/links")).status_code == 404
    async with httpx.AsyncClient(base_url=gateway.client.base_url) as stranger:
        assert (await stranger.get(f"/sandboxes/{foreign}/80/")).status_code == 401


async def test_bodies_of_any_length_go_through_both_ways_of_framing(site: Site) -> None:
    content = bytes(range(256)) * 20_000
    expected = f"{len(content)} {hashlib.sha256(content).hexdigest()}"

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 100_000):
            yield content[start : start + 100_000]

    async with site.visitor() as client:
        assert (await client.post("/", content=content)).text == expected
        assert (await client.post("/", content=chunks())).text == expected


async def test_an_answer_arrives_while_it_is_written(site: Site) -> None:
    async with site.visitor() as client, client.stream("GET", "/stream") as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"tick 0\n"
        await client.get("/release")
        assert await anext(pieces) == b"tick 1\n"


async def test_where_nothing_listens_the_page_says_what_does(site: Site, gateway: Gateway) -> None:
    link = await links.issue(gateway.redis, site.thread_id, 9, seconds=60, public=True)
    async with site.browser(f"{link.port}-{site.thread_id}.localhost") as client:
        answer = await client.get("/")
    assert answer.status_code == 502
    assert "port 9. It listens on 8080." in answer.text


@pytest.mark.parametrize("path", ["/garbage", "/hangup", "/huge-head", "/upgrade"])
async def test_a_server_that_does_not_speak_http_is_502(site: Site, path: str) -> None:
    async with site.visitor() as client:
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (502, "text/plain; charset=utf-8")
        assert "set-cookie" not in answer.headers
        assert (await client.get("/")).status_code == 200


async def test_an_answer_that_breaks_off_is_no_whole_answer(site: Site) -> None:
    async with site.visitor() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/short")


async def test_a_server_that_never_answers_is_504_and_too_many_connections_are_503(
    redis_url: str, tmp_path: Path, host: Host
) -> None:
    address, token = host.settings.sandbox.host_url, host.settings.sandbox_token_file
    sandbox = SandboxSettings(host_url=address, token_file=token, page_answer_seconds=3, link_connections=2)
    settings = settings_for(redis_url, tmp_path, sandbox=sandbox)
    async with serving(settings) as gateway, site_of(gateway, host) as site, site.visitor() as client:
        answers = await asyncio.gather(*(client.get("/never") for _ in range(3)))
        assert sorted(answer.status_code for answer in answers) == [503, 504, 504]
        assert (await client.get("/")).status_code == 200


async def test_headers_cannot_be_smuggled_in(site: Site) -> None:
    ticket = (await links.issue(site.gateway.redis, site.thread_id, PORT, seconds=60)).ticket
    reader, writer = await asyncio.open_connection("127.0.0.1", site.gateway.port)
    head = f"GET /x%0d%0aX-Evil:1?a=%0d%0aX-Evil:2 HTTP/1.1\r\nHost: {site.host}\r\nCookie: trunkline_port={ticket}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    seen = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert seen["path"] == "/x%0d%0aX-Evil:1?a=%0d%0aX-Evil:2"
    assert "x-evil" not in seen["headers"]


@pytest.mark.parametrize("name", ["0-{}.localhost", "65536-{}.localhost", "80-{}.evil.example", "80-x.localhost", "{}"])
async def test_any_other_host_is_the_apis(site: Site, name: str) -> None:
    async with site.browser(name.format(site.thread_id)) as client:
        assert "application/problem+json" in (await client.get("/nothing/here")).headers["content-type"]


async def test_two_hundred_requests_at_once_are_all_answered(site: Site) -> None:
    async with site.visitor() as client:
        answers = await asyncio.gather(*(client.get(f"/{number}") for number in range(200)))
    assert [answer.json()["path"] for answer in answers] == [f"/{number}" for number in range(200)]


async def test_a_wildcard_domain_of_ones_own(redis_url: str, tmp_path: Path, host: Host) -> None:
    api = ApiSettings(sandbox_origin="https://*.pages.example:8443")
    sandbox = SandboxSettings(host_url=host.settings.sandbox.host_url, token_file=host.settings.sandbox_token_file)
    settings = settings_for(redis_url, tmp_path, api=api, sandbox=sandbox)
    async with serving(settings) as gateway, site_of(gateway, host) as site:
        answer = await gateway.client.post(f"/api/agent/{site.thread_id}/ports/{PORT}/links")
        url = urlsplit(answer.json()["url"])
        assert (url.scheme, url.netloc) == ("https", f"{PORT}-{site.thread_id}.pages.example:8443")
        async with site.browser(url.netloc) as client:
            entry = await client.get(f"/?{url.query}")
            cookie = entry.headers["set-cookie"]
            assert cookie.startswith("__Host-trunkline_port=")
            assert "Secure" in cookie
            page = await client.get("/", headers={"Cookie": cookie.partition(";")[0]})
            assert page.json()["headers"]["host"] == url.netloc


# --- WebSockets


class Socket:
    """The client's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._socket = WSConnection(ConnectionType.CLIENT)

    async def send(self, event: Event) -> None:
        self._writer.write(self._socket.send(event))
        await self._writer.drain()

    async def event(self) -> Event:
        async with asyncio.timeout(10):
            while True:
                for event in self._socket.events():
                    return event
                self._socket.receive_data(await self._reader.read(65536) or None)

    async def message(self) -> str | bytes:
        text: str | bytes | None = None
        while True:
            event = await self.event()
            assert isinstance(event, Message), event
            text = event.data if text is None else text + event.data
            if event.message_finished:
                return text if isinstance(text, str) else bytes(text or b"")


@asynccontextmanager
async def socket_to(site: Site, ticket: str, **headers: str) -> AsyncIterator[tuple[Socket, Event]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.gateway.port)
    socket = Socket(reader, writer)
    fields = {"cookie": f"trunkline_port={ticket}", **headers}
    extra = [(name.encode(), value.encode()) for name, value in fields.items()]
    await socket.send(Request(host=site.host, target="/ws?a=b", extra_headers=extra, subprotocols=["one", "two"]))
    try:
        yield socket, await socket.event()
    finally:
        writer.transport.abort()


@pytest.fixture
async def ticket(site: Site) -> str:
    return (await links.issue(site.gateway.redis, site.thread_id, PORT, seconds=60)).ticket


async def test_messages_of_a_websocket_go_both_ways_as_they_are(site: Site, ticket: str) -> None:
    async with socket_to(site, ticket) as (socket, accepted):
        assert isinstance(accepted, AcceptConnection)
        assert accepted.subprotocol == "two"
        for sent in ("hällo", "", "x" * 300_000):
            await socket.send(TextMessage(data=sent))
            assert await socket.message() == sent
        await socket.send(BytesMessage(data=bytes(range(256))))
        assert await socket.message() == bytes(range(256))


async def test_either_side_hears_how_the_other_closed(site: Site, ticket: str) -> None:
    async with socket_to(site, ticket) as (socket, _):
        await socket.send(TextMessage(data="close"))
        closed = await socket.event()
        assert isinstance(closed, CloseConnection)
        assert (closed.code, closed.reason) == (4001, "enough")
    async with socket_to(site, ticket) as (socket, _):
        await socket.send(CloseConnection(code=4002, reason="bye"))
        async with asyncio.timeout(10):
            while "4002 bye" not in await site.box.text("cat closed || true"):
                await asyncio.sleep(0.02)
    async with socket_to(site, ticket) as (socket, _):
        await socket.send(TextMessage(data="drop"))
        dropped = await socket.event()
        assert isinstance(dropped, CloseConnection)
        assert dropped.code == 1011


async def test_a_websocket_needs_a_ticket_and_its_own_page(site: Site, ticket: str) -> None:
    for given, origin, status in (
        ("forged", f"http://{site.host}", 403),
        (ticket, "https://evil.example", 403),
        (ticket, f"http://{site.host}", 101),
    ):
        async with socket_to(site, given, origin=origin) as (_, event):
            if status == 101:
                assert isinstance(event, AcceptConnection)
            else:
                assert isinstance(event, RejectConnection)
                assert event.status_code == status
