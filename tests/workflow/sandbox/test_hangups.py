"""Clients of the host that go away in the middle: nobody waits for an answer, and nothing is wrong with the host."""

import asyncio
import os
from urllib.parse import urlsplit

import pytest

from tests.workflow.sandbox.support import Box, Host, new_box
from workflow.sandbox import wire
from workflow.sandbox.base import Command
from workflow.sandbox.local import LocalProvider

MODE = "root" if os.geteuid() == 0 else "user"
MISSING = 100  # bytes of a body that never come


async def hang_up(host: Host, box: Box, operation: str, body: bytes, *, after: bytes | None = None) -> None:
    """In the middle of the request; or of the answer, once it has said `after`."""
    address = urlsplit(host.settings.sandbox.host_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = (
        f"POST /sandboxes/{box.run_id.partition('.')[0]}/{operation} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {host.settings.sandbox_token_file.read_text().strip()}\r\n"
        f"Content-Length: {len(body) + (0 if after else MISSING)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    if after:
        await reader.readuntil(after)
    writer.transport.abort()


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("stat", b"{"),
        ("exec", b"{"),
        ("outgoing", b"{"),
        ("incoming", b"{"),
        ("incoming", b'{"op":"take","path":"x"}\n'),
    ],
)
async def test_a_request_that_breaks_off_is_no_fault_of_the_host(operation: str, body: bytes) -> None:
    with Host(MODE) as host:
        provider = LocalProvider(host.settings)
        box = await new_box(provider)
        await hang_up(host, box, operation, body)
        assert await box.text("echo on") == "on\n"
        await provider.close()
        host.stop()
        assert "Traceback" not in host.log.read_text()


async def test_an_answer_that_nobody_hears_any_more_is_no_fault_of_the_host() -> None:
    with Host(MODE) as host:
        provider = LocalProvider(host.settings)
        box = await new_box(provider)
        follow = wire.Exec(Command(box.key(), 1, "echo begun; until [ -e go ]; do sleep 0.02; done; seq 100000"))
        await hang_up(host, box, "exec", wire.encode(follow), after=b"begun")
        await box.run("head -c 50M /dev/zero >large; touch go")
        await hang_up(host, box, "outgoing", b'{"op":"send","path":"large"}', after=b"\n")
        assert await box.text("echo on") == "on\n"
        await provider.close()
        host.stop()
        assert "Traceback" not in host.log.read_text()
