"""The retry policy, with the clock and the dice in the test's hand."""

from dataclasses import replace

import pytest

from shared.errors import ErrorCode
from workflow.llm.retry import LONGEST_RETRY_AFTER, RetryPolicy, retried
from workflow.llm.types import ModelError

DOWN = ModelError(ErrorCode.MODEL_UNAVAILABLE, "down", retryable=True)
REFUSED = ModelError(ErrorCode.MODEL_AUTH, "no")


def always_most(low: float, high: float) -> float:
    return high


def later(seconds: float) -> ModelError:
    return ModelError(ErrorCode.MODEL_RATE_LIMITED, "slow down", retryable=True, retry_after=seconds)


POLICY = RetryPolicy(max_attempts=4, backoff_seconds=1, backoff_max_seconds=3, uniform=always_most)


class Log:
    """What a call's caller is told, in order, and the pauses made."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    async def retry(self, error: ModelError, pause: float) -> None:
        self.lines.append(f"{error.detail}: again in {pause:g}")

    async def sleep(self, seconds: float) -> None:
        self.lines.append(f"slept {seconds:g}")

    async def retried(self, *outcomes: ModelError | str) -> str:
        left = list(outcomes)

        async def attempt() -> str:
            outcome = left.pop(0)
            if isinstance(outcome, ModelError):
                raise outcome
            return outcome

        return await retried(replace(POLICY, sleep=self.sleep), attempt, self.retry)


async def test_an_answer_needs_no_second_try() -> None:
    log = Log()
    assert await log.retried("Good day") == "Good day"
    assert log.lines == []


async def test_pauses_double_up_to_the_longest_and_the_last_error_comes_out() -> None:
    log = Log()
    with pytest.raises(ModelError, match="down"):
        await log.retried(DOWN, DOWN, DOWN, DOWN, "too late")
    assert [line for line in log.lines if line.startswith("slept")] == ["slept 1", "slept 2", "slept 3"]


async def test_a_further_try_is_announced_before_the_pause() -> None:
    log = Log()
    assert await log.retried(DOWN, "Good day") == "Good day"
    assert log.lines == ["down: again in 1", "slept 1"]


async def test_what_cannot_succeed_is_not_repeated() -> None:
    log = Log()
    with pytest.raises(ModelError, match="no"):
        await log.retried(REFUSED, "too late")
    assert log.lines == []


def test_the_jitter_is_full() -> None:
    drawn = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return low

    assert replace(POLICY, uniform=draw).pause(2, DOWN) == 0
    assert drawn == [(0, 2)]


def test_a_provider_is_given_at_least_the_time_it_asked_for() -> None:
    assert POLICY.pause(1, later(20)) == 21
    assert replace(POLICY, uniform=min).pause(1, later(20)) == 20


def test_a_provider_that_asks_for_too_long_is_not_waited_for() -> None:
    assert POLICY.pause(1, later(LONGEST_RETRY_AFTER + 1)) is None
