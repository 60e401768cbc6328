"""Files and ports of sandboxes at E2B and Daytona: a real gateway, a real remote host, the real SDKs, doubles that
really run commands.
"""

import asyncio
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import pytest
from wsproto.events import AcceptConnection, TextMessage

from shared import links
from shared.config import Settings, SnapshotSettings
from shared.install import Install
from shared.keys import ThreadKeys
from tests.gateway.sandboxes.test_pages import PORT, SERVER, Site, socket_to
from tests.gateway.support import Gateway, serving, settings_for, until
from tests.support.daytona_double import DaytonaDouble
from tests.support.e2b_double import E2BDouble
from tests.support.ports import free_port
from tests.workflow.sandbox.conformance.box import Box
from workflow.files import Files
from workflow.sandbox import remotes as remotes_module
from workflow.sandbox.choose import choose_provider
from workflow.sandbox.remote_api import RemoteApi
from workflow.sandbox.remote_host import provider_of
from workflow.sandbox.remote_provider import RemoteProvider
from workflow.sandbox.remotes import Remotes
from workflow.sandbox.sandboxd_parts import PART_BYTES
from workflow.sandbox.serving import listen, server_of, token_of

KINDS = ["e2b", pytest.param("daytona", marks=pytest.mark.slow)]


@dataclass
class Cloud:
    """A double, and what the tests do to its one machine, in the words of both."""

    kind: str
    double: Any

    def settings(self) -> dict[str, Any]:
        given = {"api_key": self.double.key, "api_url": self.double.api_url}
        if self.kind == "e2b":
            given["sandbox_url"] = self.double.api_url
        return {"sandbox": {"provider": self.kind}, self.kind: given}

    @property
    def box(self) -> Any:
        (box,) = self.double.boxes.values()
        return box

    async def rest(self) -> None:
        """What comes of it where nobody uses it."""
        await (self.double.pause(self.box) if self.kind == "e2b" else self.double.stop(self.box))

    async def end(self) -> None:
        await (self.double.kill(self.box) if self.kind == "e2b" else self.double.delete(self.box))

    def rests(self) -> bool:
        return bool(self.box.state != ("running" if self.kind == "e2b" else "started"))


@dataclass
class Place:
    cloud: Cloud
    gateway: Gateway
    remotes: Remotes
    provider: RemoteProvider
    """A worker's."""

    async def box(self, thread_id: str) -> Box:
        return Box(self.provider, await self.provider.acquire(thread_id, None), thread_id)

    async def put(self, thread_id: str, path: str, content: bytes, **headers: str) -> httpx.Response:
        return await self.gateway.client.put(f"/api/agent/{thread_id}/files/{path}", content=content, headers=headers)

    async def get(self, thread_id: str, path: str, **headers: str) -> httpx.Response:
        return await self.gateway.client.get(f"/api/agent/{thread_id}/files/{path}", headers=headers)

    async def list(self, thread_id: str) -> list[str]:
        answer = await self.gateway.client.get(f"/api/agent/{thread_id}/files", params={"depth": 2})
        assert answer.status_code == 200, answer.text
        return [entry["path"] for entry in answer.json()["entries"]]


@asynccontextmanager
async def cloud_of(kind: str) -> AsyncIterator[Cloud]:
    async with E2BDouble() if kind == "e2b" else DaytonaDouble() as double:
        yield Cloud(kind, double)


@asynccontextmanager
async def remote_host(settings: Settings) -> AsyncIterator[Remotes]:
    """As `python -m workflow.sandbox.remote_host`, in the test's own loop."""
    provider = await provider_of(settings)
    remotes = Remotes(provider, settings.sandbox)
    server = server_of(RemoteApi(remotes).app(token_of(settings.sandbox_token_file)))
    serving = asyncio.create_task(server.serve([listen(settings.sandbox.host_url)]))
    await until(lambda: server.started)
    yield remotes
    server.should_exit = True
    await serving
    await provider.close()


@pytest.fixture(params=KINDS)
async def place(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> AsyncIterator[Place]:
    async with cloud_of(request.param) as cloud:
        sections = cloud.settings()
        sections["sandbox"] |= {"host_url": f"http://127.0.0.1:{free_port()}", "upload_bytes": 50_000_000}
        base = settings_for(redis_url, tmp_path)
        settings = Settings.model_validate({**base.model_dump(exclude_unset=True), **sections})
        async with remote_host(settings) as remotes, serving(settings) as gateway:
            redis = (await provider_of(settings)).cloud._install.redis  # type: ignore[attr-defined]
            provider = choose_provider(settings, Install(redis, redis))
            assert isinstance(provider, RemoteProvider)
            yield Place(cloud, gateway, remotes, provider)
            await provider.close()


@pytest.fixture
async def thread_id(place: Place) -> str:
    return await place.gateway.thread()


# --- files


async def test_a_thread_without_a_machine_has_no_files_and_asking_makes_none(place: Place, thread_id: str) -> None:
    assert await place.list(thread_id) == []
    assert (await place.get(thread_id, "a.txt")).status_code == 404
    assert place.cloud.double.alive() == {}


async def test_what_was_uploaded_is_in_the_machine_that_a_run_finds_and_comes_back(
    place: Place, thread_id: str
) -> None:
    written = await place.put(thread_id, "data/in.txt", b"hello")
    assert written.status_code == 200, written.text
    assert (written.json()["size"], written.json()["sha256"]) == (5, hashlib.sha256(b"hello").hexdigest())
    assert await place.list(thread_id) == ["data", "data/in.txt"]
    box = await place.box(thread_id)
    assert await box.text("cat data/in.txt; echo more > data/out.txt") == "hello"
    answer = await place.get(thread_id, "data/out.txt")
    assert answer.content == b"more\n"
    assert answer.headers["etag"].strip('"') == hashlib.sha256(b"more\n").hexdigest()
    assert (await place.get(thread_id, "data/in.txt", Range="bytes=1-3")).content == b"ell"
    assert (await place.get(thread_id, "data/in.txt", Range="bytes=-2")).content == b"lo"
    assert (await place.get(thread_id, "nothing")).status_code == 404
    assert len(place.cloud.double.alive()) == 1


async def test_a_file_of_several_parts_goes_in_and_out_whole_and_leaves_no_part_behind(
    place: Place, thread_id: str
) -> None:
    content = bytes(range(256)) * ((2 * PART_BYTES + 1_000_000) // 256)
    assert (await place.put(thread_id, "large", content)).status_code == 200
    answer = await place.get(thread_id, "large")
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(content).digest()
    box = await place.box(thread_id)
    assert await box.text("find ~/.trunkline/parts ~/.trunkline/inbox ~/.trunkline/outbox -type f") == ""


async def test_a_write_can_be_bound_to_what_was_there(place: Place, thread_id: str) -> None:
    await place.put(thread_id, "file", b"old")
    assert (await place.put(thread_id, "file", b"new", **{"If-Match": '"' + "0" * 64 + '"'})).status_code == 412
    known = {"If-Match": f'"{hashlib.sha256(b"old").hexdigest()}"'}
    assert (await place.put(thread_id, "file", b"new", **known)).status_code == 200
    assert (await place.get(thread_id, "file")).content == b"new"


async def test_an_archive_goes_in_and_a_folder_comes_out_as_one(place: Place, thread_id: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("src/app.py")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"print"))
    files = f"/api/agent/{thread_id}/files"
    unpacked = await place.gateway.client.put(files, content=buffer.getvalue())
    assert (unpacked.status_code, unpacked.json()["count"]) == (200, 1)
    packed = await place.gateway.client.get(f"{files}/src", params={"archive": "tar.gz"})
    with tarfile.open(fileobj=io.BytesIO(packed.content)) as archive:
        content = archive.extractfile("app.py")
        assert content
        assert content.read() == b"print"
    refused = await place.gateway.client.put(files, content=b"no archive at all")
    assert refused.status_code == 400, refused.text


async def test_files_of_a_machine_at_rest_come_back_with_it(place: Place, thread_id: str) -> None:
    await place.put(thread_id, "file", b"kept")
    await place.cloud.rest()
    assert place.cloud.rests()
    assert (await place.get(thread_id, "file")).content == b"kept"
    assert not place.cloud.rests()


async def test_a_machine_that_is_gone_has_no_files_and_the_next_upload_makes_another(
    place: Place, thread_id: str
) -> None:
    await place.put(thread_id, "file", b"lost")
    await place.cloud.end()
    assert await place.list(thread_id) == []
    assert (await place.get(thread_id, "file")).status_code == 404
    assert place.cloud.double.alive() == {}
    assert (await place.put(thread_id, "other", b"new")).status_code == 200
    assert await place.list(thread_id) == ["other"]


async def test_a_sandbox_that_nobody_uses_is_let_go(
    place: Place, thread_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remotes_module, "KEPT_SECONDS", 0.05)
    await place.put(thread_id, "file", b"x")
    await until(lambda: place.remotes.held == 0)
    assert (await place.get(thread_id, "file")).content == b"x"


async def test_a_fork_has_the_files_of_the_machine_that_it_was_forked_from(place: Place, thread_id: str) -> None:
    services = place.gateway.app.state.services
    run_id = await place.gateway.finished_run(thread_id)
    box = await place.box(thread_id)
    await box.run("mkdir src; echo hello > src/a.txt")
    await place.gateway.redis.hset(ThreadKeys(thread_id).metadata, "sandbox", orjson.dumps(box.sandbox.ref))
    files = Files(services.snapshots, services.store, place.provider, SnapshotSettings())
    files.keep(await services.store.thread(thread_id), run_id)
    await files.close()
    forked = await place.gateway.client.post(f"/api/agent/{thread_id}/fork", json={})
    fork = forked.json()["thread_id"]
    sandbox = await files.acquire(fork, None)
    assert "copied from the thread that this one was forked from" in str(sandbox.notice)
    assert sandbox.ref["id"] != box.sandbox.ref["id"]
    assert await place.list(fork) == ["src", "src/a.txt"]
    assert (await place.get(fork, "src/a.txt")).content == b"hello\n"


# --- ports


async def site_at(place: Place, thread_id: str) -> Site:
    box = await place.box(thread_id)
    await place.put(thread_id, "server.py", SERVER)
    await box.run(f"exec python3 server.py {PORT}", background=True)
    await box.run(f"for i in $(seq 100); do (: < /dev/tcp/127.0.0.1/{PORT}) 2> /dev/null && break; sleep 0.1; done")
    return Site(place.gateway, box, thread_id)  # type: ignore[arg-type]


async def test_a_link_leads_to_the_page_in_the_machine(place: Place, thread_id: str) -> None:
    site = await site_at(place, thread_id)
    async with site.visitor() as client:
        page = await client.get("/deep/path?a=1", headers={"Origin": f"http://{site.host}", "Authorization": "secret"})
        told = page.json()
        posted = await client.post("/", content=bytes(3_000_000))
        redirected = await client.get("/redirect")
    assert (page.status_code, told["path"]) == (200, "/deep/path?a=1")
    assert redirected.headers["location"] == f"//{site.host}/there?a=1"
    assert told["headers"]["x-forwarded-host"] == site.host
    assert urlsplit(told["headers"]["origin"]).netloc != site.host
    assert "authorization" not in told["headers"]
    assert posted.text == f"3000000 {hashlib.sha256(bytes(3_000_000)).hexdigest()}"


async def test_a_websocket_goes_both_ways(place: Place, thread_id: str) -> None:
    site = await site_at(place, thread_id)
    ticket = (await links.issue(place.gateway.redis, thread_id, PORT, seconds=60)).ticket
    async with socket_to(site, ticket) as (socket, accepted):
        assert isinstance(accepted, AcceptConnection)
        for sent in ("hällo", "x" * 100_000):
            await socket.send(TextMessage(data=sent))
            assert await socket.message() == sent


async def test_a_port_without_a_server_says_which_ones_have_one(place: Place, thread_id: str) -> None:
    site = await site_at(place, thread_id)
    link = await place.gateway.client.post(f"/api/agent/{thread_id}/ports/9/links")
    async with site.browser(f"9-{thread_id}.localhost:{place.gateway.port}") as client:
        parts = urlsplit(link.json()["url"])
        await client.get(f"{parts.path}?{parts.query}")
        page = await client.get("/")
    assert page.status_code == 502
    assert f"listens on {PORT}" in page.text


async def test_what_a_pages_machine_does_after_a_rest_is_what_its_provider_promises(
    place: Place, thread_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remotes_module, "WAY_SECONDS", 0.0)
    site = await site_at(place, thread_id)
    async with site.visitor() as client:
        await place.cloud.rest()
        page = await client.get("/")
        assert page.status_code == (200 if place.cloud.kind == "e2b" else 502), page.text
        await place.cloud.end()
        gone = await client.get("/")
    assert (gone.status_code, "Nothing in the sandbox listens" in gone.text) == (502, True)
    assert place.cloud.double.alive() == {}
