"""A port of a sandbox as its host reaches it: through sockets that come out, and no other way."""

import array
import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from gateway.sandboxes.tunnel import HostRefused, Tunnel, closing
from tests.support.ports import free_port
from tests.workflow.sandbox.support import Box, Host
from workflow.sandbox.handed import Channel, Handed

ECHO = """python3 -c '
import socket, threading
def serve(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)
def listen(family, address):
    server = socket.socket(family)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(address)
    server.listen(300)
    while True:
        threading.Thread(target=serve, args=[server.accept()[0]], daemon=True).start()
threading.Thread(target=listen, args=[socket.AF_INET6, ("::1", 7006)], daemon=True).start()
listen(socket.AF_INET, ("127.0.0.1", 7004))
'"""


async def listens(box: Box, *ports: int) -> None:
    async with asyncio.timeout(10):
        while not set(ports) <= set(await box.sandbox.ports()):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def dialled(host: Host, thread_id: str, port: int) -> AsyncIterator[Tunnel]:
    token = host.settings.sandbox_token_file.read_text().strip()
    path = f"/sandboxes/{thread_id}/ports/{port}"
    tunnel = await Tunnel.open(host.settings.sandbox.host_url, path, [("authorization", f"Bearer {token}")])
    async with closing(tunnel):
        yield tunnel


def thread_of(box: Box) -> str:
    return box.run_id.partition(".")[0]


async def exactly(tunnel: Tunnel, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = await tunnel.read(65536, 10)
        assert piece, "it ended too early"
        received += piece
    return received


@pytest.mark.parametrize("port", [7004, 7006], ids=["IPv4", "IPv6"])
async def test_what_is_sent_to_a_port_comes_back_as_its_server_answers(host: Host, box: Box, port: int) -> None:
    await box.run(ECHO, background=True)
    await listens(box, port)
    async with dialled(host, thread_of(box), port) as tunnel:
        for text in (b"hello", b"x" * 300_000):
            sending = asyncio.create_task(tunnel.write(text))
            assert await exactly(tunnel, len(text)) == text
            await sending


async def test_a_port_of_a_sandbox_is_on_no_port_of_the_host(box: Box) -> None:
    await box.run(ECHO, background=True)
    await listens(box, 7004)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", 7004)


async def test_a_port_of_the_host_is_none_of_the_sandbox(host: Host, box: Box) -> None:
    port = free_port()
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
    async with server:
        await box.run("true")
        with pytest.raises(HostRefused, match="422"):
            async with dialled(host, thread_of(box), port):
                pass


async def test_where_nothing_listens_the_host_names_the_ports_on_which_something_does(host: Host, box: Box) -> None:
    await box.run(ECHO, background=True)
    await listens(box, 7004, 7006)
    with pytest.raises(HostRefused) as refused:
        async with dialled(host, thread_of(box), 7005):
            pass
    assert b'"ports":[7004,7006]' in refused.value.body


async def test_nothing_listens_in_a_sandbox_at_rest_and_asking_does_not_wake_it(host: Host, box: Box) -> None:
    assert await box.sandbox.ports() == []
    with pytest.raises(HostRefused, match="422"):
        async with dialled(host, thread_of(box), 7004):
            pass
    assert thread_of(box) not in str(host.processes())


async def test_without_the_token_there_is_no_connection(host: Host, box: Box) -> None:
    with pytest.raises(HostRefused, match="401"):
        await Tunnel.open(host.settings.sandbox.host_url, f"/sandboxes/{thread_of(box)}/ports/7004", [])


async def test_the_end_of_a_server_is_the_end_of_the_stream(host: Host, box: Box) -> None:
    script = "s=__import__('socket').create_server(('127.0.0.1', 7004)); c=s.accept()[0]; c.sendall(b'bye'); c.close()"
    await box.run(f'python3 -c "{script}"', background=True)
    await listens(box, 7004)
    async with dialled(host, thread_of(box), 7004) as tunnel:
        assert await exactly(tunnel, 3) == b"bye"
        assert await tunnel.read(1, 10) == b""


async def test_the_end_of_a_sandbox_is_the_end_of_the_stream(host: Host, box: Box) -> None:
    await box.run(ECHO, background=True)
    await listens(box, 7004)
    async with dialled(host, thread_of(box), 7004) as tunnel:
        await box.run("kill -9 -1")
        assert await tunnel.read(1, 10) == b""


async def test_two_hundred_connections_at_once_are_all_served(host: Host, box: Box) -> None:
    await box.run(ECHO, background=True)
    await listens(box, 7004)

    async def echo(number: int) -> bool:
        async with dialled(host, thread_of(box), 7004) as tunnel:
            text = b"%d" % number * 50
            await tunnel.write(text)
            return await exactly(tunnel, len(text)) == text

    assert all(await asyncio.gather(*map(echo, range(200))))


async def test_a_reader_that_does_not_read_makes_the_server_wait(host: Host, box: Box) -> None:
    """64 MiB would not fit into the buffers on the way."""
    script = (
        "import socket; s=socket.create_server(('127.0.0.1', 7004)); c=s.accept()[0]\n"
        "for n in range(1024):\n c.sendall(bytes(65536)); open('/workspace/sent', 'w').write(str(n))"
    )
    await box.run(f'python3 -c "{script}"', background=True)
    await listens(box, 7004)
    async with dialled(host, thread_of(box), 7004) as tunnel:
        await exactly(tunnel, 1)
        before = -1
        while before != (now := int(await box.text("sleep 0.3; cat /workspace/sent || echo 0") or 0)):
            before = now
        assert before < 512


class Impostor:
    """A channel, and the end of it that an agent has taken over."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel = Channel(ours)

    def send(self, text: bytes, *fds: int) -> None:
        self.theirs.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])

    def close(self) -> None:
        self.channel.close()
        self.theirs.close()


@pytest.fixture
async def impostor() -> AsyncIterator[Impostor]:
    impostor = Impostor()
    before = _open_descriptors()
    yield impostor
    assert _open_descriptors() == before, "a descriptor was kept"
    impostor.close()


@contextmanager
def closing_fd(fd: int) -> Iterator[int]:
    yield fd
    os.close(fd)


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_only_a_socket_that_is_waited_for_is_kept(impostor: Impostor) -> None:
    ours, theirs = socket.socketpair()
    with closing_fd(os.open("/dev/null", os.O_RDONLY)) as null, ours, theirs, impostor.channel.expected() as token:
        for text in (b"", b"x", b"99", b"-1", b"%d" % token):
            impostor.send(text, null)
        impostor.send(b"%d" % token, null, null, null)
        impostor.send(b"99", theirs.fileno())
        assert impostor.channel.take(token) is None
        impostor.send(b"%d" % token, theirs.fileno())
        impostor.send(b"%d" % token, theirs.fileno())
        handed = impostor.channel.take(token)
        assert handed is not None
        handed.close()


async def test_what_nobody_took_is_closed(impostor: Impostor) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, impostor.channel.expected() as first, impostor.channel.expected() as second:
        impostor.send(b"%d" % second, theirs.fileno())
        assert impostor.channel.take(first) is None


async def test_only_a_connection_to_the_port_itself_leads_to_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connected, unconnected = socket.create_connection(("127.0.0.1", port)), socket.socket()
        unix, other = socket.socketpair()
        with other, server.accept()[0]:
            for fd, expected in ((connected, True), (unconnected, False), (unix, False)):
                with Handed(fd.detach()) as handed:
                    assert handed.leads_to(port) is expected
                    assert not handed.leads_to(port + 1)


async def test_a_socket_that_the_inside_makes_blocking_blocks_nobody() -> None:
    ours, theirs = socket.socketpair()
    with ours, Handed(os.dup(theirs.fileno())) as handed:
        theirs.setblocking(True)  # of the same open file description
        reading = asyncio.create_task(handed.read())
        writing = asyncio.create_task(handed.write(bytes(10_000_000)))
        await asyncio.wait_for(asyncio.sleep(0.01), 5)
        assert not reading.done()
        assert not writing.done()
        theirs.close()
        ours.sendall(b"x")
        assert await asyncio.wait_for(reading, 5) == b"x"
        ours.close()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(writing, 5)
