"""An HTTP answer without end, and how much of it was taken."""

import contextlib
from dataclasses import dataclass

from aiohttp import web


@dataclass
class Flood:
    """Answers with `first`, then with `piece` again and again until the client hangs up or has had `most` bytes."""

    piece: bytes
    most: int
    first: bytes = b""
    sent: int = 0

    async def serve(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            await response.write(self.first)
            while self.sent < self.most:
                await response.write(self.piece)
                self.sent += len(self.piece)
        return response
