"""A TCP proxy on loopback that hangs up in the middle of answers."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager


@asynccontextmanager
async def cutting(target_port: int, after: Iterable[int]) -> AsyncIterator[int]:
    """Each next connection is cut after so many bytes of the server's; when `after` is used up, none is any more."""
    limits, lines = iter(after), set[asyncio.Task[None]]()

    async def answers(source: asyncio.StreamReader, target: asyncio.StreamWriter, left: int | None) -> None:
        while left != 0 and (data := await source.read(4096)):
            data = data[:left]
            left = None if left is None else left - len(data)
            target.write(data)
            await target.drain()

    async def requests(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(4096):
            target.write(data)

    async def line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection("127.0.0.1", target_port)
        ways = {asyncio.create_task(answers(back, writer, next(limits, None)))}
        ways.add(asyncio.create_task(requests(reader, there)))
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            there.transport.abort()
            writer.close()  # what was let through arrives

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.add(asyncio.create_task(line(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for each in lines:
            each.cancel()
        await asyncio.gather(*lines, return_exceptions=True)
