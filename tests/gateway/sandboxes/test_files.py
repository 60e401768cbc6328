"""The files of a thread's sandbox over HTTP: whole, streamed, and never outside of it."""

import asyncio
import gzip
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator

import httpx
import pytest

from shared.ids import new_thread_id
from shared.threads.types import NewThread
from tests.gateway.support import Gateway
from tests.workflow.sandbox.support import Box, Host
from workflow.sandbox.local import LocalProvider


async def put(gateway: Gateway, thread_id: str, path: str, content: bytes, **headers: str) -> httpx.Response:
    return await gateway.client.put(f"/api/agent/{thread_id}/files/{path}", content=content, headers=headers)


async def get(gateway: Gateway, thread_id: str, path: str, **headers: str) -> httpx.Response:
    return await gateway.client.get(f"/api/agent/{thread_id}/files/{path}", headers=headers)


@pytest.fixture
async def thread_id(gateway: Gateway) -> str:
    return await gateway.thread()


@pytest.fixture
async def box(host: Host, thread_id: str) -> AsyncIterator[Box]:
    provider = LocalProvider(host.settings)
    yield Box(await provider.acquire(thread_id, None), thread_id)
    await provider.close()


def archive_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


async def test_a_thread_without_a_sandbox_has_no_files_and_asking_makes_none(
    gateway: Gateway, host: Host, thread_id: str
) -> None:
    listing = await gateway.client.get(f"/api/agent/{thread_id}/files")
    assert (listing.status_code, listing.json()["entries"]) == (200, [])
    assert (await get(gateway, thread_id, "a.txt")).status_code == 404
    assert not (host.settings.workspaces / thread_id).exists()


async def test_what_was_uploaded_is_listed_and_comes_back(gateway: Gateway, thread_id: str, box: Box) -> None:
    content = bytes(range(256)) * 40_000
    written = await put(gateway, thread_id, "data/in.bin", content)
    digest = hashlib.sha256(content).hexdigest()
    assert written.status_code == 200, written.text
    assert (written.json()["size"], written.json()["sha256"]) == (len(content), digest)
    listing = (await gateway.client.get(f"/api/agent/{thread_id}/files", params={"depth": 2})).json()
    assert [(entry["path"], entry["kind"]) for entry in listing["entries"]] == [
        ("data", "directory"),
        ("data/in.bin", "file"),
    ]
    for path in ("data/in.bin", "/workspace/data/in.bin"):
        answer = await get(gateway, thread_id, path)
        assert answer.content == content
        assert answer.headers["etag"] == f'"{digest}"'
    for folder in ("data", "/workspace/data", "/workspace/data/"):
        inside = (await gateway.client.get(f"/api/agent/{thread_id}/files", params={"path": folder})).json()
        assert (inside["path"], inside["entries"][0]["path"]) == ("/workspace/data", "in.bin")
    assert (await box.text("sha256sum < data/in.bin")).split()[0] == digest


async def test_what_an_agent_writes_can_be_fetched_and_runs_on_no_page_of_ours(
    gateway: Gateway, thread_id: str, box: Box
) -> None:
    await box.run("echo '<script>alert(1)</script>' > 'a \"b\" ü.html'")
    answer = await get(gateway, thread_id, 'a "b" ü.html')
    assert answer.headers["content-type"] == "text/html"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''a%20%22b%22%20%C3%BC.html"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("asked", "status", "expected"),
    [
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=7-99", 206, b"789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=-99", 206, b"0123456789"),
        ("bytes=10-", 416, b""),
        ("bytes=-0", 416, b""),
        ("bytes=5-2", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
        ("bytes=0-1,3-4", 200, b"0123456789"),
    ],
)
async def test_a_part_of_a_file_can_be_asked_for(
    gateway: Gateway, thread_id: str, asked: str, status: int, expected: bytes
) -> None:
    await put(gateway, thread_id, "digits", b"0123456789")
    answer = await get(gateway, thread_id, "digits", Range=asked)
    assert (answer.status_code, answer.content) == (status, expected)


async def test_a_file_is_replaced_only_if_it_is_the_one_that_was_meant(gateway: Gateway, thread_id: str) -> None:
    first = (await put(gateway, thread_id, "a", b"1")).json()["sha256"]
    assert (await put(gateway, thread_id, "a", b"2", **{"If-Match": f'"{first}"'})).status_code == 200
    refused = await put(gateway, thread_id, "a", b"3", **{"If-Match": f'"{first}"'})
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    assert (await get(gateway, thread_id, "a")).content == b"2"


async def test_a_file_that_must_be_there_is_replaced_whatever_it_is_and_is_not_made(
    gateway: Gateway, thread_id: str
) -> None:
    refused = await put(gateway, thread_id, "a", b"1", **{"If-Match": "*"})
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    assert (await get(gateway, thread_id, "a")).status_code == 404
    await put(gateway, thread_id, "a", b"1")
    assert (await put(gateway, thread_id, "a", b"2", **{"If-Match": "*"})).status_code == 200
    assert (await get(gateway, thread_id, "a")).content == b"2"


async def test_an_upload_that_breaks_off_leaves_the_file_as_it_was(gateway: Gateway, thread_id: str, box: Box) -> None:
    await put(gateway, thread_id, "a", b"before")
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    authorization = gateway.client.headers["authorization"]
    head = f"PUT /api/agent/{thread_id}/files/a HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n"
    writer.write(head.encode() + b"Content-Length: 1000000\r\n\r\n" + bytes(500_000))
    await writer.drain()
    async with asyncio.timeout(10):
        while ".tmp" not in await box.text("ls -a"):
            await asyncio.sleep(0.02)
        writer.transport.abort()
        while ".tmp" in await box.text("ls -a"):
            await asyncio.sleep(0.02)
    assert await box.text("cat a") == "before"
    assert reader


async def test_an_upload_above_the_limit_is_413_and_leaves_nothing(gateway: Gateway, thread_id: str, box: Box) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(1_000_000)

    for content in (bytes(20_000_001), endless()):
        answer = await gateway.client.put(f"/api/agent/{thread_id}/files/large", content=content)
        assert answer.status_code == 413
    async with asyncio.timeout(10):
        while await box.text("ls -A"):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "path",
    [
        *("%2e%2e/x", "a/%2e%2e/%2e%2e/etc/passwd", "%2Fetc/passwd", "a%00b", "..%2f..%2fetc%2fpasswd"),
        *("%2Fworkspacex/b", "%2Fworkspace/%2e%2e/etc/passwd", "%2Fworkspace%2F%2Fetc/passwd"),
    ],
)
async def test_no_path_leads_out_of_the_workspace(gateway: Gateway, thread_id: str, path: str) -> None:
    await put(gateway, thread_id, "a/b", b"")
    for answer in (await get(gateway, thread_id, path), await put(gateway, thread_id, path, b"x")):
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_a_link_leads_nowhere_on_the_host(gateway: Gateway, thread_id: str, box: Box, host: Host) -> None:
    secret = host.settings.sandbox_token_file
    await box.run(f"ln -s {secret} secret; ln -s / root; mkfifo pipe; ln -s /dev/zero zero")
    for path, status in (("secret", 404), (f"root{secret}", 404), ("pipe", 400), ("zero", 400)):
        answer = await asyncio.wait_for(get(gateway, thread_id, path), 10)
        assert answer.status_code == status, answer.text
    assert "root:x:0:0::" in (await get(gateway, thread_id, "root/etc/passwd")).text  # the sandbox's own
    assert (await put(gateway, thread_id, "root/etc/passwd", b"x")).status_code == 400


async def test_a_folder_goes_out_and_in_again_as_an_archive(gateway: Gateway, thread_id: str, box: Box) -> None:
    await box.run("mkdir -p p/sub && echo one > p/a && ln p/a p/hard && ln -s a p/soft && echo two > p/sub/b")
    await box.run(
        "chmod 755 p/a; mkfifo p/pipe; echo no > p/closed; chmod 0 p/closed; head -c 3000000 /dev/urandom > p/c"
    )
    params = {"archive": "tar.gz"}
    packed = await gateway.client.get(f"/api/agent/{thread_id}/files/p", params=params)
    assert packed.headers["content-disposition"].endswith("p.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(packed.content)) as archive:
        assert sorted(archive.getnames()) == ["a", "c", "hard", "soft", "sub", "sub/b"]
    url = f"/api/agent/{thread_id}/files/q/r"
    unpacked = await gateway.client.put(url, params=params, content=packed.content)
    assert (unpacked.status_code, unpacked.json()["count"]) == (200, 6), unpacked.text
    assert await box.text("cd q/r && cat hard soft sub/b && test -x a && cmp c ../../p/c") == "one\none\ntwo\n"


@pytest.mark.parametrize(
    "content",
    [
        archive_of((tarfile.TarInfo("../x"), b"evil")),
        archive_of((tarfile.TarInfo("/workspace/x"), b"evil")),
        archive_of(link("x", "../../etc/passwd", tarfile.LNKTYPE)),
        archive_of(link("x", "", tarfile.FIFOTYPE)),
        b"no archive",
        archive_of((tarfile.TarInfo("y"), bytes(100_000)))[:-200],
        gzip.compress(b"x" * 5000),
    ],
    ids=["above", "absolute", "hard link", "a FIFO", "noise", "cut", "gzip of no archive"],
)
async def test_a_bad_archive_is_refused_in_words(gateway: Gateway, thread_id: str, box: Box, content: bytes) -> None:
    answer = await gateway.client.put(f"/api/agent/{thread_id}/files/q", params={"archive": "tar.gz"}, content=content)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text
    assert "archive" in answer.json()["detail"]
    assert await box.text("ls -A /workspace; ls -A q") in ("q\n", "q\ny\n")


async def test_the_files_of_another_workspace_do_not_exist(gateway: Gateway) -> None:
    foreign = new_thread_id()
    await gateway.store.create_thread(NewThread(foreign, "somebody-else"))
    for thread_id in (foreign, new_thread_id(), "nope"):
        for answer in (
            await gateway.client.get(f"/api/agent/{thread_id}/files"),
            await get(gateway, thread_id, "a"),
            await put(gateway, thread_id, "a", b""),
        ):
            assert answer.status_code == 404


async def test_a_sandbox_host_that_is_away_is_503(gateway: Gateway, thread_id: str) -> None:
    gateway.app.state.services.sandboxes._url = gateway.app.state.services.sandboxes._client.base_url = (
        "http://127.0.0.1:1"
    )
    answer = await gateway.client.get(f"/api/agent/{thread_id}/files")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "retry-after" in answer.headers


async def test_forty_downloads_at_once_are_all_whole(gateway: Gateway, thread_id: str) -> None:
    await put(gateway, thread_id, "a", bytes(100_000))
    gateway.client.timeout = httpx.Timeout(60)

    async def whole() -> bool:
        return len((await get(gateway, thread_id, "a")).content) == 100_000

    assert all(await asyncio.gather(*(whole() for _ in range(40))))
