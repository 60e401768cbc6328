"""The reads of all streams, pipelined over one connection, whatever the number of those who ask."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.redis import passes

log = logging.getLogger("trunkline.gateway.stream")

BATCH = 32  # commands in one pipeline: bounds what one round trip may bring
FIRST_PAUSE, LAST_PAUSE = 0.02, 0.5  # seconds between tries while Redis is away


@dataclass(frozen=True, slots=True)
class _Ask:
    command: tuple[Any, ...]
    answer: asyncio.Future[Any]


class Reader:
    """Answers `ask` as soon as Redis does: while it is away, questions wait and are asked again.

    `away` tells so; `on_change` is called when it changes. Only for commands that may be repeated.
    """

    def __init__(self, client: Redis, on_change: Callable[[], None]) -> None:
        self.away = False
        self.outages = 0
        self._client = client
        self._on_change = on_change
        self._asks: deque[_Ask] = deque()
        self._asked = asyncio.Event()

    def ask(self, *command: Any) -> asyncio.Future[Any]:
        """The answer to come; RedisError when the command itself is wrong."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asks.append(_Ask(command, answer))
        self._asked.set()
        return answer

    async def run(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            while self._asks:
                await self._answer([self._asks.popleft() for _ in range(min(BATCH, len(self._asks)))])

    async def _answer(self, asks: list[_Ask]) -> None:
        pause = FIRST_PAUSE
        while asks := [ask for ask in asks if not ask.answer.done()]:
            try:
                await self._try(asks)
            except RedisError as error:
                self._is_away(error)
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
                pause = min(pause * 2, LAST_PAUSE)

    async def _try(self, asks: list[_Ask]) -> None:
        """Raises what passes by itself; any other error is the answer of those whom it concerns."""
        pipeline = self._client.pipeline(transaction=False)
        for ask in asks:
            pipeline.execute_command(*ask.command)
        try:
            answers = await pipeline.execute(raise_on_error=False)
        except RedisError as error:
            if passes(error):
                raise
            answers = [error] * len(asks)
        for ask, answer in zip(asks, answers, strict=True):
            _settle(ask.answer, answer)
        self._is_back()

    def _is_away(self, error: RedisError) -> None:
        if not self.away:
            log.warning("Redis is away, streams wait for it: %s", error)
            self.away = True
            self.outages += 1
            self._on_change()

    def _is_back(self) -> None:
        if self.away:
            log.info("Redis is back, streams go on")
            self.away = False
            self._on_change()


def _settle(answer: asyncio.Future[Any], value: Any) -> None:
    if answer.done():  # whoever asked has gone
        return
    if not isinstance(value, Exception):
        answer.set_result(value)
    elif passes(value):
        raise value
    else:
        answer.set_exception(value)
