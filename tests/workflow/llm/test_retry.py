"""The retry policy, with the clock and the dice in the test's hand."""

from dataclasses import replace

import pytest

from shared.errors import ErrorCode
from workflow.llm.retry import LONGEST_RETRY_AFTER, RetryPolicy, complete
from workflow.llm.scripted import BrokenOff, ScriptedModel, ScriptedTurn
from workflow.llm.types import ModelError, ModelRequest, ModelResponse, TextDelta, ThinkingDelta

REQUEST = ModelRequest(messages=[{"role": "user", "content": "Hello"}])
ANSWER = ModelResponse("Good day")
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

    async def delta(self, delta: TextDelta | ThinkingDelta) -> None:
        self.lines.append(delta.text)

    async def retry(self, number: int, error: ModelError, pause: float) -> None:
        self.lines.append(f"try {number}: {error.detail}, in {pause:g}")

    async def sleep(self, seconds: float) -> None:
        self.lines.append(f"slept {seconds:g}")

    async def complete(self, script: list[ScriptedTurn]) -> ModelResponse:
        policy = replace(POLICY, sleep=self.sleep)
        return await complete(ScriptedModel(script), REQUEST, policy, self.delta, self.retry)


async def test_an_answer_needs_no_second_try() -> None:
    log = Log()
    assert await log.complete([ANSWER]) == ANSWER
    assert log.lines == ["Good ", "day"]


async def test_pauses_double_up_to_the_longest_and_the_last_error_comes_out() -> None:
    log = Log()
    with pytest.raises(ModelError, match="down"):
        await log.complete([DOWN, DOWN, DOWN, DOWN, ANSWER])
    assert [line for line in log.lines if line.startswith("slept")] == ["slept 1", "slept 2", "slept 3"]


async def test_a_further_try_is_announced_after_the_void_text_and_before_the_pause() -> None:
    log = Log()
    await log.complete([BrokenOff(DOWN, "Goo"), ANSWER])
    assert log.lines == ["Goo", "try 2: down, in 1", "slept 1", "Good ", "day"]


async def test_what_cannot_succeed_is_not_repeated() -> None:
    log = Log()
    with pytest.raises(ModelError, match="no"):
        await log.complete([REFUSED, ANSWER])
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
