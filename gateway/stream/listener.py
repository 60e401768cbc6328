"""The one subscriber connection of a gateway process: it hears which threads' streams have something new."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from shared.redis import passes

log = logging.getLogger("trunkline.gateway.stream")

BATCH = 200  # channels in one command
PAUSE = 0.2  # seconds between tries to connect


class Listener:
    """Keeps the subscriptions as `subscribe` and `unsubscribe` want them, across lost connections.

    `on_news(channel)`: something was published. `on_subscribed(channel)`: from now on it is heard, again after each
    reconnect, so that the caller can look for what was published meanwhile. `on_lost()`: nothing is heard for now.
    """

    # On redis-py's Connection rather than its PubSub, which reconnects and resubscribes by itself from whichever task
    # touches it first, and so cannot say since when a channel is heard.

    def __init__(
        self,
        client: Redis,
        *,
        on_news: Callable[[bytes], None],
        on_subscribed: Callable[[bytes], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._client = client
        self._on_news = on_news
        self._on_subscribed = on_subscribed
        self._on_lost = on_lost
        self._wanted: set[bytes] = set()
        self._changed: set[bytes] = set()
        self._to_send = asyncio.Event()
        self._connection: AbstractConnection | None = None
        self._ping_due = False
        self._ping_sent = False

    def subscribe(self, channel: bytes) -> None:
        self._wanted.add(channel)
        self._change({channel})

    def unsubscribe(self, channel: bytes) -> None:
        self._wanted.discard(channel)
        self._change({channel})

    async def check(self) -> None:
        """Call it now and then: a connection that did not answer since the last call is given up."""
        connection = self._connection
        if connection and self._ping_sent:
            log.warning("the subscriber connection to Redis is dead: connecting anew")
            self._connection = None  # first: send_command would connect it again, for nobody
            await connection.disconnect(nowait=True)
        elif connection:
            self._ping_due = True
            self._to_send.set()

    async def listen(self) -> None:
        """Runs for ever, beside `send`."""
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                level = logging.DEBUG if isinstance(error, OSError) or passes(error) else logging.ERROR
                log.log(level, "the subscriber connection to Redis was lost: %s", error)
            self._on_lost()
            await asyncio.sleep(PAUSE)

    async def send(self) -> None:
        """Runs for ever. The only sender, so that the last wish for a channel is the last command about it."""
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            connection = self._connection
            if connection is None:
                continue
            changed, self._changed = self._changed, set()
            await self._send(connection, "SSUBSCRIBE", sorted(changed & self._wanted))
            await self._send(connection, "SUNSUBSCRIBE", sorted(changed - self._wanted))
            if self._ping_due:
                self._ping_due, self._ping_sent = False, True
                await self._send(connection, "PING", [b"alive"])

    def _change(self, channels: set[bytes]) -> None:
        self._changed |= channels
        self._to_send.set()

    async def _listen(self) -> None:
        """Until the connection is lost. Raises RedisError, OSError."""
        connection = self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()
            # From here on it waits for as long as it takes. Besides, with a timeout send_command writes from another
            # task, which may find the connection closed under it.
            connection.socket_timeout = None
            self._connection, self._ping_sent = connection, False
            self._change(self._wanted)
            while True:
                self._hear(await connection.read_response(disconnect_on_error=False, push_request=True))
        finally:
            self._connection = None
            await connection.disconnect(nowait=True)

    def _hear(self, message: Any) -> None:
        self._ping_sent = False
        match message:
            case [b"smessage", channel, _]:
                self._on_news(channel)
            case [b"ssubscribe", channel, _]:
                self._on_subscribed(channel)

    async def _send(self, connection: AbstractConnection, command: str, arguments: list[bytes]) -> None:
        """A failure is for the listening task to notice."""
        for start in range(0, len(arguments), BATCH):
            if connection is not self._connection:
                return
            try:
                await connection.send_command(command, *arguments[start : start + BATCH], check_health=False)
            except (RedisError, OSError) as error:
                log.debug("the subscriber connection to Redis could not be written to: %s", error)
