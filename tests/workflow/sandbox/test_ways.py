"""Connections to ports by a provider's addresses."""

import asyncio
import contextlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared.config import E2BSettings
from workflow.sandbox.e2b import E2BMachine
from workflow.sandbox.ways import Pipe, web_way


def certificate_for(name: str, folder: Path) -> Path:
    """Its own authority; with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    signed = builder.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "certificate.pem"
    path.write_bytes(signed.public_bytes(pem) + private)
    return path


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_provider_is_reached_under_the_name_that_it_gave(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "8080-x.sandboxes.localhost"
    certificate = certificate_for(name, tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    over = asyncio.Event()

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        over.set()

    server = await asyncio.start_server(shout, "127.0.0.1", 0, ssl=context if scheme == "https" else None)
    port = server.sockets[0].getsockname()[1]
    way = web_way(f"{scheme}://{name}:{port}", {"x-token": "t"})
    assert way.headers == {"host": f"{name}:{port}", "x-token": "t"}
    stream = await way.open()
    await stream.write(b"hello\n")
    assert await stream.read() == b"HELLO\n"
    assert await stream.read() == b""
    stream.end()
    stream.close()
    assert isinstance(stream, Pipe)
    async with asyncio.timeout(10):
        await over.wait()
        with contextlib.suppress(OSError):
            await stream._writer.wait_closed()
    server.close()


async def test_e2bs_own_addresses_are_used_unless_there_is_one_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("E2B_SANDBOX_URL", raising=False)
    sandbox = MagicMock(sandbox_id="x", traffic_access_token="t")
    sandbox.get_host.return_value = "80-x.e2b.app"
    way = await E2BMachine(sandbox, E2BSettings()).way(80)
    assert way.headers == {"host": "80-x.e2b.app", "e2b-traffic-access-token": "t"}
    monkeypatch.setenv("E2B_SANDBOX_URL", "https://all.e2b.example")
    way = await E2BMachine(sandbox, E2BSettings()).way(80)
    assert way.headers == {
        **{"host": "all.e2b.example", "e2b-traffic-access-token": "t"},
        **{"e2b-sandbox-id": "x", "e2b-sandbox-port": "80"},
    }
