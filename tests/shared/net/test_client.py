"""Connections go to the addresses that were checked, whatever a name means a moment later."""

import gzip
import ssl
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared.net.client import BodyRefused, GuardedTransport, guarded_client, read_capped
from shared.net.guard import Guard, Refused
from tests.shared.net.test_guard import PUBLIC, Names
from tests.support.web_server import Answer, Asked, web_server


class Elsewhere(GuardedTransport):
    """Notes where it would connect to; at `dead` addresses nobody answers."""

    def __init__(self, guard: Guard, *dead: str) -> None:
        super().__init__(guard)
        self.connected: list[str] = []
        self._dead = dead

    def new_transport(self) -> httpx.AsyncHTTPTransport:
        outer = self

        class Inner(httpx.AsyncHTTPTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                outer.connected.append(request.url.host)
                if request.url.host in outer._dead:
                    raise httpx.ConnectError("nobody is there")
                return httpx.Response(200)

        return Inner()


async def test_a_name_is_resolved_once_and_the_connection_goes_to_what_was_checked() -> None:
    names = Names(rebind_test=[[PUBLIC], ["127.0.0.1"]])
    transport = Elsewhere(Guard(resolve=names))
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        await client.get("http://rebind.test/")
        assert (names.asked, transport.connected) == (["rebind.test"], [PUBLIC])
        with pytest.raises(Refused):
            await client.get("http://rebind.test/")
    assert transport.connected == [PUBLIC]


async def test_a_redirect_is_followed_only_by_hand_and_checked_anew() -> None:
    def respond(asked: Asked) -> Answer:
        return Answer(302, headers={"Location": "http://169.254.169.254/latest/"})

    async with web_server(respond) as server:
        guard = Guard(private_hosts=[f"127.0.0.1:{server.port}"])
        async with guarded_client(guard, seconds=5) as client:
            response = await client.get(server.url)
            assert response.status_code == 302
            assert response.next_request is not None
            with pytest.raises(Refused):
                await client.send(response.next_request)
            with pytest.raises(Refused):
                await client.get(server.url, follow_redirects=True)


async def test_the_next_address_is_tried_when_nobody_answers_at_the_first() -> None:
    transport = Elsewhere(Guard(resolve=Names(two_test=[["93.184.215.13", PUBLIC]])), "93.184.215.13")
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        assert (await client.get("http://two.test/")).status_code == 200
    assert transport.connected == ["93.184.215.13", PUBLIC]


async def test_the_server_sees_its_own_name_and_no_cookies_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with web_server(lambda _: Answer(headers={"Set-Cookie": "a=b"})) as server:
        host = f"only-here.test:{server.port}"
        guard = Guard(private_hosts=[host], resolve=Names(**{"only-here_test": [["127.0.0.1"]]}))
        async with guarded_client(guard, seconds=5) as client:
            assert [(await client.get(f"http://{host}/")).status_code for _ in range(2)] == [200, 200]
    assert [asked.headers["host"] for asked in server.asked] == [host, host]
    assert [asked.headers.get("cookie") for asked in server.asked] == [None, None]


async def test_the_certificate_is_checked_for_the_name_and_not_for_the_address(tmp_path: Path) -> None:
    seen: list[str | None] = []
    serving, trusting = certified("only-here.test", tmp_path)
    serving.sni_callback = lambda _socket, name, _context: seen.append(name)
    async with web_server(lambda _: Answer(body=b"hello"), serving) as server:
        hosts = [f"only-here.test:{server.port}", f"wrong.test:{server.port}"]
        names = Names(**{"only-here_test": [["127.0.0.1"]], "wrong_test": [["127.0.0.1"]]})
        guard = Guard(private_hosts=hosts, resolve=names, verify=trusting)
        async with guarded_client(guard, seconds=5) as client:
            assert (await client.get(f"https://{hosts[0]}/")).text == "hello"
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get(f"https://{hosts[1]}/")
    assert seen == ["only-here.test", "wrong.test"]


def certified(name: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's TLS with a certificate for that name, and a client's that trusts it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "server.pem"
    file.write_bytes(secret + pem)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(file)
    return serving, ssl.create_default_context(cadata=pem.decode())


async def body_of(answer: Answer, limit: int = 1000) -> bytes:
    async with web_server(lambda _: answer) as server:
        guard = Guard(private_hosts=[f"127.0.0.1:{server.port}"])
        async with guarded_client(guard, seconds=5) as client, client.stream("GET", server.url) as response:
            return await read_capped(response, limit)


async def test_a_body_is_read_plain_and_compressed() -> None:
    assert await body_of(Answer(body=b"x" * 1000)) == b"x" * 1000
    assert await body_of(Answer(body=b"")) == b""
    compressed = Answer(body=gzip.compress(b"x" * 1000), headers={"Content-Encoding": "gzip"})
    assert await body_of(compressed) == b"x" * 1000


async def test_a_body_longer_than_allowed_is_refused_even_where_it_is_short_on_the_wire() -> None:
    with pytest.raises(BodyRefused, match="more than 1,000 bytes"):
        await body_of(Answer(body=b"x" * 1001))
    bomb = gzip.compress(b"\x00" * 50_000_000)
    assert len(bomb) < 60_000
    with pytest.raises(BodyRefused, match="more than 1,000 bytes"):
        await body_of(Answer(body=bomb, headers={"Content-Encoding": "gzip"}))


@pytest.mark.parametrize(
    ("encoding", "body", "why"),
    [
        ("br", b"abc", "'br' was not asked for"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"a", mtime=0), mtime=0), "was not asked for"),
        ("deflate", zlib.compress(b"a"), "was not asked for"),
        ("gzip", b"not gzip at all", "is not"),
        ("gzip", gzip.compress(b"hello" * 100, mtime=0)[:-12], "ends in the middle"),
    ],
)
async def test_a_body_in_another_encoding_is_refused(encoding: str, body: bytes, why: str) -> None:
    with pytest.raises(BodyRefused, match=why):
        await body_of(Answer(body=body, headers={"Content-Encoding": encoding}))
