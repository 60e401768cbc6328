"""The circuit breaker against a model of it: several workers on one real Valkey, calls that end late or never.

Time passes by moving the times in Redis back, as far as the clock would have moved on.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import redis.asyncio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shared import keys
from shared.breaker import seconds_held
from shared.errors import ErrorCode
from shared.redis import connect
from workflow.llm.breaker.breaker import Breaker, BreakerPolicy, HeldBack
from workflow.llm.types import ModelError

POLICY = BreakerPolicy(failures=2, open_seconds=60, probe_seconds=10)
NAME = "openai/x"
TIMES = ("open_until", "probe_until", "away_until")
SLACK = 4.5
"""Seconds that the test itself may take while its own clock stands still; time passes in larger steps."""
SETTINGS = settings(max_examples=40, stateful_step_count=50, suppress_health_check=list(HealthCheck), database=None)
ENDS: dict[str, ModelError | None] = {
    "success": None,
    "outage": ModelError(ErrorCode.MODEL_UNAVAILABLE, "down", retryable=True, outage=True),
    "limited": ModelError(ErrorCode.MODEL_RATE_LIMITED, "slow down", retryable=True, retry_after=7),
    "refused": ModelError(ErrorCode.MODEL_ERROR, "no"),
    "away 300": ModelError(ErrorCode.MODEL_RATE_LIMITED, "not now", retryable=True, retry_after=300),
    "away 150": ModelError(ErrorCode.MODEL_RATE_LIMITED, "not now", retryable=True, retry_after=150),
}
HOW = st.sampled_from([*(["success", "outage", "outage", "limited", "refused"] * 3), "away 300", "away 150"])


@dataclass
class Oracle:
    """What the breaker should be: an era is the time between two changes of state."""

    now: float = 0.0
    era: int = 0
    failures: int = 0
    open_until: float | None = None
    probe_until: float = 0.0
    away_until: float = 0.0

    @property
    def held(self) -> float:
        opened = 0.0 if self.open_until is None else max(self.open_until, self.probe_until)
        return max(0.0, opened - self.now, self.away_until - self.now)

    def admit(self) -> int:
        if self.open_until is not None:
            self.era += 1
            self.probe_until = self.now + POLICY.probe_seconds
        return self.era

    def end(self, era: int, how: str) -> None:
        if era == self.era:
            if self.open_until is not None:
                self._end_probe(how)
            elif how == "outage":
                self.failures += 1
                if self.failures > POLICY.failures:
                    self._open()
            elif how == "success":
                self.failures = 0
        if how.startswith("away"):
            self.away_until = max(self.away_until, self.now + float(how.split()[1]))

    def _end_probe(self, how: str) -> None:
        self.probe_until = 0
        if how == "outage":
            self._open()
        elif how != "canceled":
            self.era += 1
            self.open_until, self.failures = None, 0

    def _open(self) -> None:
        self.era += 1
        self.open_until = self.now + POLICY.open_seconds


@dataclass
class Call:
    era: int
    is_probe: bool
    end: "asyncio.Future[str]"
    task: "asyncio.Task[str]"


class Fleet(RuleBasedStateMachine):
    """Three workers. A call that is never ended is a killed worker's; one that ends after its lease is a zombie's."""

    url: str

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.Runner()
        self.clients = [connect(self.url, timeout_seconds=5, max_connections=20) for _ in range(3)]
        self.client: redis.asyncio.Redis = self.clients[0]
        self.breakers = [Breaker(client, POLICY) for client in self.clients]
        self.oracle = Oracle()
        self.calls: list[Call] = []

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.run(self._close())
            self.loop.close()

    async def _close(self) -> None:
        for call in self.calls:
            call.task.cancel()
        await asyncio.gather(*(call.task for call in self.calls), return_exceptions=True)
        await self.client.flushall()
        for client in self.clients:
            await client.aclose()

    @rule(worker=st.integers(0, 2))
    def call(self, worker: int) -> None:
        self.loop.run(self._call(self.breakers[worker]))

    async def _call(self, breaker: Breaker) -> None:
        started, end = asyncio.Event(), asyncio.get_running_loop().create_future()

        async def provider() -> str:
            started.set()
            how: str = await end
            if error := ENDS[how]:
                raise error
            return how

        task = asyncio.create_task(breaker.guard(NAME, provider))
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=5)
        waiting.cancel()
        held = self.oracle.held
        if held:
            error = task.exception()
            assert isinstance(error, HeldBack), "a call went out that should have been held back"
            assert held - SLACK < error.retry_after <= held + 0.01
        else:
            assert started.is_set(), f"a call was held back: {task}"
            is_probe = self.oracle.open_until is not None
            self.calls.append(Call(self.oracle.admit(), is_probe, end, task))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), how=HOW)
    def end(self, data: st.DataObject, how: str) -> None:
        self._end(self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1))), how)

    def _end(self, call: Call, how: str) -> None:
        call.end.set_result(how)
        outcome = self.loop.run(_outcome(call.task))
        self.oracle.end(call.era, how)
        self._judge(how, outcome)

    @rule(worker=st.integers(0, 2), how=HOW)
    def short_call(self, worker: int, how: str) -> None:
        before = len(self.calls)
        self.call(worker)
        if len(self.calls) > before:
            self._end(self.calls.pop(), how)

    @precondition(lambda self: not self.oracle.held and self.oracle.open_until is None)
    @rule()
    def provider_goes_down(self) -> None:
        while not self.oracle.held:
            self.call(0)
            self._end(self.calls.pop(), "outage")

    def _judge(self, how: str, outcome: Any) -> None:
        """A success or a refusal stays one, whatever the breaker thinks; a failure says whether a call may follow."""
        if how == "success":
            assert outcome == "success"
        elif how != "refused" and self.oracle.held:
            assert isinstance(outcome, HeldBack)
            assert outcome.__cause__ is ENDS[how]
            assert self.oracle.held - SLACK < outcome.retry_after <= self.oracle.held + 0.01
        else:
            assert outcome is ENDS[how]

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        call = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        call.task.cancel()
        assert isinstance(self.loop.run(_outcome(call.task)), asyncio.CancelledError)
        if call.is_probe:
            self.oracle.end(call.era, "canceled")

    @rule(seconds=st.sampled_from([5, 10, 60, 60, 60, 300]))
    def time_passes(self, seconds: int) -> None:
        self.oracle.now += seconds
        self.loop.run(self._time_passes(seconds * 1000))

    async def _time_passes(self, ms: int) -> None:
        key = keys.breaker(NAME)
        for name in TIMES:
            if int(await self.client.hget(key, name) or 0):
                await self.client.hincrby(key, name, -ms)

    @invariant()
    def everybody_sees_the_same(self) -> None:
        if not hasattr(self, "loop"):
            return
        held = self.loop.run(seconds_held(self.client, [NAME]))
        assert (held or 0) <= self.oracle.held + 0.01
        assert (held or 0) > self.oracle.held - SLACK
        assert (held is None) == (self.oracle.held == 0)

    @invariant()
    def a_healthy_provider_costs_no_memory(self) -> None:
        if hasattr(self, "loop") and self.oracle.era == 0 and not self.oracle.failures and not self.oracle.away_until:
            assert not self.loop.run(_awaited(self.client.hgetall(keys.breaker(NAME))))


async def _awaited(call: Any) -> Any:
    return await call


async def _outcome(task: "asyncio.Task[str]") -> Any:
    """What it returned or raised."""
    await asyncio.wait({task}, timeout=5)
    return (await asyncio.gather(task, return_exceptions=True))[0]


def test_whatever_happens_the_breaker_does_as_its_model(redis_url: str) -> None:
    Fleet.url = redis_url
    run_state_machine_as_test(Fleet, settings=SETTINGS)
