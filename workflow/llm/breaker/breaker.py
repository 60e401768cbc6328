"""The circuit breaker of a model's deployment, shared by all workers: a provider that keeps failing is left alone.

closed -> more than `failures` failures in a row -> open for `open_seconds` -> half-open: one call goes out, the probe.
It succeeds, or is refused: closed. It fails: open again. A prober that is killed loses its lease, and another follows.
Only failures of the provider count (`ModelError.outage`). While Redis is away, every call goes out.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.breaker import model_of
from shared.scripts import Scripts
from shared.tasks import cancel
from workflow.llm.retry import asks_too_much
from workflow.llm.types import ModelError

LONGEST_AWAY_SECONDS = 24 * 3600.0
"""A provider that names a time beyond it (a quota of a month, a wrong clock) is asked again after a day."""

T = TypeVar("T")
log = logging.getLogger("trunkline.llm")


@dataclass(frozen=True)
class BreakerPolicy:
    """`probe_seconds`: the probe's lease, renewed while it is under way."""

    failures: int = 5
    open_seconds: float = 60.0
    probe_seconds: float = 10.0


class HeldBack(Exception):
    """No call goes out to the deployment before `retry_at` (seconds since 1970 by Redis' clock)."""

    def __init__(self, reason: str, retry_at: float, retry_after: float) -> None:
        super().__init__(f"{reason} It is left alone for {retry_after:.0f} s.")
        self.retry_at = retry_at
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class _Call:
    deployment: str
    generation: int
    is_probe: bool


class Breaker:
    def __init__(self, client: Redis, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._scripts = Scripts(client, __package__, "admit", "report", "renew")

    async def guard(self, deployment: str | None, call: Callable[[], Awaitable[T]]) -> T:
        """What `call` returns. None stands for a model in this process, which needs no breaker.

        Raises HeldBack without calling, or where the call's own failure opened the breaker or asked for a long pause
        (its cause is that ModelError); else what `call` raises.
        """
        if deployment is None:
            return await call()
        admitted = await self._admit(deployment)
        try:
            result = await self._renewing(admitted, call)
        except ModelError as error:
            await self._failed(admitted, error)
            raise
        except BaseException:
            if admitted and admitted.is_probe:
                await self._report(admitted, "abandoned")
            raise
        if admitted:
            await self._report(admitted, "success")
        return result

    async def _admit(self, deployment: str) -> _Call | None:
        """None where Redis is away. Raises HeldBack."""
        answer = await self._ask("admit", deployment, _ms(self._policy.probe_seconds))
        match answer:
            case None:
                return None
            case [kind, generation]:
                return _Call(deployment, generation, kind in ("probe", b"probe"))
        raise _held(f"{model_of(deployment)}: its provider kept failing, or asked for a pause.", answer)

    async def _failed(self, admitted: _Call | None, error: ModelError) -> None:
        """Raises HeldBack where a call that might succeed later may not follow now."""
        away = min(error.retry_after or 0, LONGEST_AWAY_SECONDS) if asks_too_much(error) else 0
        answer = None
        if admitted:
            answer = await self._report(admitted, "failure" if error.outage else "refused", away)
        if not error.retryable:
            return
        if answer and len(answer) == 3:
            held = _held(error.detail, answer)
        elif away:  # Redis is away: this worker's clock has to do
            held = HeldBack(error.detail, time.time() + away, away)
        else:
            return
        log.warning("%s", held)
        raise held from error

    async def _report(self, call: _Call, outcome: str, away_seconds: float = 0) -> list[Any] | None:
        policy = self._policy
        times = _ms(policy.open_seconds), _ms(away_seconds)
        answer: list[Any] | None = await self._ask(
            "report", call.deployment, outcome, call.generation, policy.failures, *times
        )
        return answer

    async def _renewing(self, admitted: _Call | None, call: Callable[[], Awaitable[T]]) -> T:
        if admitted is None or not admitted.is_probe:
            return await call()
        log.info("%s: one call tries whether the provider is back", admitted.deployment)
        renewal = asyncio.create_task(self._renew(admitted))
        try:
            return await call()
        finally:
            await cancel([renewal])

    async def _renew(self, probe: _Call) -> None:
        while True:
            await asyncio.sleep(self._policy.probe_seconds / 3)
            if await self._ask("renew", probe.deployment, probe.generation, _ms(self._policy.probe_seconds)) == 0:
                return

    async def _ask(self, script: str, deployment: str, *args: str | int) -> Any:
        """The script's answer; None where Redis gives none."""
        try:
            return await self._scripts.call(script, [keys.breaker(deployment)], args, lasting=False)
        except RedisError as error:
            log.warning("the circuit breaker cannot be asked, so calls go out without it: %s", error)
            return None


def _held(reason: str, answer: list[Any]) -> HeldBack:
    _, until_ms, now_ms = answer
    # A millisecond later than the first that is admitted: whoever rounds down to milliseconds still comes in time.
    return HeldBack(reason, (until_ms + 1) / 1000, (until_ms + 1 - now_ms) / 1000)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
