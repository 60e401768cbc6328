"""A Redis client that sends what many requests ask at the same time together, on one connection.

A pool would open a connection for each that asks at once, and with many streams opening these would be many; and where a
pool is bounded, who waits longest is not served first.
"""

import asyncio
from collections import deque
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

AT_ONCE = 100


class Together(Redis):
    """Commands are answered in the order in which they were given. None is repeated."""

    def __init__(self, client: Redis) -> None:
        super().__init__(connection_pool=client.connection_pool)
        self._client = client
        self._asked: deque[tuple[tuple[Any, ...], dict[str, Any], asyncio.Future[Any]]] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.append((args, options, answer))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        return await answer

    async def _send(self) -> None:
        try:
            while self._asked:
                await self._send_some([self._asked.popleft() for _ in range(min(AT_ONCE, len(self._asked)))])
        finally:
            self._sending = None

    async def _send_some(self, asked: list[tuple[tuple[Any, ...], dict[str, Any], asyncio.Future[Any]]]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for args, options, _ in asked:
            pipeline.execute_command(*args, **options)
        try:
            answers = await pipeline.execute(raise_on_error=False)
        except RedisError as error:
            answers = [error] * len(asked)
        for (_, _, answer), found in zip(asked, answers, strict=True):
            if answer.done():  # whoever asked has gone
                continue
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)
