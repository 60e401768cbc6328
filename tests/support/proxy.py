"""A TCP proxy on loopback that can misbehave as networks do."""

import asyncio
from typing import Literal

Mode = Literal["pass", "refuse", "black_hole", "half_open", "delay"]
CHUNK = 65536


class Proxy:
    """From `port` to the target's port. `set(mode)` holds for open connections too, and for those to come.

    pass: as it should be. refuse: connections are broken off, new ones too. black_hole: nothing passes, nothing is
    broken off. half_open: what the client says arrives, the answers do not. delay: every piece comes `delay_seconds`
    late. What a black hole or a half-open line swallowed is lost with its connection, which ends when the mode does.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.delay_seconds = 0.05
        self._target_port = target_port
        self._mode: Mode = "pass"
        self._lines: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._break_off()

    async def set(self, mode: Mode) -> None:
        swallowed = self._mode in ("black_hole", "half_open")
        self._mode = mode
        if mode == "refuse" or swallowed:
            await self._break_off()

    async def _break_off(self) -> None:
        lines = list(self._lines)
        for line in lines:
            line.cancel()
        await asyncio.gather(*lines, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = asyncio.create_task(self._line(reader, writer))
        self._lines.add(line)
        line.add_done_callback(self._lines.discard)

    async def _line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there: asyncio.StreamWriter | None = None
        try:
            if self._mode == "refuse":
                return
            back, there = await asyncio.open_connection("127.0.0.1", self._target_port)
            ways = [asyncio.create_task(self._copy(reader, there)), asyncio.create_task(self._copy(back, writer, True))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass
        finally:
            for end in (writer, there):
                if end is not None:
                    end.transport.abort()

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, answers: bool = False) -> None:
        while data := await source.read(CHUNK):
            if self._mode == "delay":
                await asyncio.sleep(self.delay_seconds)
            if self._mode == "black_hole" or (answers and self._mode == "half_open"):
                continue
            target.write(data)
            await target.drain()
