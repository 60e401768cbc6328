"""What the gateway depends on, each asked whether it is there. One more is one more line in `checks_of`."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from gateway.deps import Services
from shared.errors import AppError
from shared.queue import queue_lengths

ANSWER_SECONDS = 2.0
"""What takes longer counts as away: whoever asks does not wait for ever either."""

log = logging.getLogger("trunkline.gateway.health")


@dataclass(frozen=True, slots=True)
class Check:
    """`needed`: without it the gateway can do nothing that it is for."""

    ask: Callable[[], Awaitable[Any]]
    needed: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """`value` is the check's answer, None where there was none."""

    needed: bool
    value: Any
    latency_ms: float | None

    @property
    def there(self) -> bool:
        return self.latency_ms is not None


def checks_of(services: Services) -> Mapping[str, Check]:
    return {
        "redis": Check(services.redis.ping, needed=True),
        "database": Check(lambda: _select(services), needed=True),
        "queue": Check(lambda: queue_lengths(services.broker)),
        "workers": Check(services.workers.alive),
    }


async def findings(services: Services) -> dict[str, Finding]:
    """All checks at once, in `ANSWER_SECONDS` at most."""
    checks = checks_of(services)
    found = await asyncio.gather(*(_find(name, check) for name, check in checks.items()))
    return dict(zip(checks, found, strict=True))


async def _find(name: str, check: Check) -> Finding:
    began = time.perf_counter()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            value = await check.ask()
    except (RedisError, AppError, TimeoutError) as error:
        log.debug("%s does not answer: %r", name, error)
        return Finding(check.needed, None, None)
    return Finding(check.needed, value, round((time.perf_counter() - began) * 1000, 2))


async def _select(services: Services) -> bool:
    async with services.db.connect() as connection:
        return bool((await connection.exec_driver_sql("SELECT 1")).scalar_one())
