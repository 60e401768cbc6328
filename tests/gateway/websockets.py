"""A WebSocket client, by a library that is not the server's."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from shared.types import JSON
from tests.gateway.support import BOUND_SECONDS, KEY, Gateway

AUTHORIZED = {"authorization": f"Bearer {KEY}"}


class Client:
    """What comes over one open WebSocket, and what it is closed with."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def next(self) -> JSON:
        message = await self.socket.receive(BOUND_SECONDS)
        assert message.type is aiohttp.WSMsgType.TEXT, f"{message}, closed with {self.socket.close_code}"
        return dict(json.loads(message.data))

    async def take(self, count: int) -> list[JSON]:
        return [await self.next() for _ in range(count)]

    async def until(self, **members: Any) -> JSON:
        """The next message with these members."""
        while True:
            message = await self.next()
            if all(message.get(name) == value for name, value in members.items()):
                return message

    async def ask(self, **frame: Any) -> JSON:
        """A frame's answer; events that come before it are passed over."""
        await self.socket.send_json(frame)
        while (message := await self.next())["type"] not in ("answer", "error"):
            pass
        return message

    async def close_code(self) -> int | None:
        """What the server closes it with; what it still says is passed over."""
        while (message := await self.socket.receive(BOUND_SECONDS)).type is aiohttp.WSMsgType.TEXT:
            pass
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING)
        return self.socket.close_code


@asynccontextmanager
async def websocket(
    gateway: Gateway, path: str, headers: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[Client]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"http://127.0.0.1:{gateway.port}{path}", headers=AUTHORIZED if headers is None else headers, **options
        ) as socket,
    ):
        yield Client(socket)


async def refusal(gateway: Gateway, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, JSON]:
    """The status and problem document in the place of a WebSocket."""
    handshake = {
        **{"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"},
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    given = AUTHORIZED if headers is None else headers
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{gateway.port}{path}", headers={**given, **handshake}) as answer,
    ):
        assert answer.status != 101, "it was opened"
        assert answer.headers["content-type"] == "application/problem+json"
        return answer.status, dict(json.loads(await answer.read()))
