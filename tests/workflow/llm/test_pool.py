"""Retries, circuit breaker and fallback models together, over real HTTP and a real Valkey."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from shared.errors import ErrorCode
from shared.redis import connect
from tests.support.model_server import Failure, ModelServer, Turn, model_server
from workflow.llm.breaker.breaker import Breaker, BreakerPolicy
from workflow.llm.client import LiteLLMModel, ModelOptions, close_connections
from workflow.llm.pool import ModelPool, Try
from workflow.llm.retry import RetryPolicy
from workflow.llm.types import ModelError, ModelRequest, ModelResponse, ModelsUnavailable, TextDelta, ThinkingDelta

REQUEST = ModelRequest(messages=[{"role": "user", "content": "Hello"}])
DOWN = Failure(503, "overloaded")


@dataclass
class Rig:
    """Servers a, b, c, each with the model openai/NAME. `told`: what the stream would be told, in order."""

    servers: dict[str, ModelServer]
    client: Redis
    told: list[str] = field(default_factory=list)
    tries: list[Try] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    async def complete(
        self, models: Sequence[str] = ("a", "b"), *, attempts: int = 2, policy: BreakerPolicy | None = None
    ) -> ModelResponse:
        """As another worker would, each time."""
        breaker = Breaker(self.client, policy or BreakerPolicy())
        retry = RetryPolicy(attempts, 0, 0, sleep=self.sleep)
        pool = ModelPool([self.model(name) for name in models], breaker, retry)
        return await pool.complete(REQUEST, self.on_delta, self.on_retry)

    def model(self, name: str) -> LiteLLMModel:
        url = self.servers[name].api_url if name in self.servers else "http://127.0.0.1:1/v1"
        return LiteLLMModel(ModelOptions(f"openai/{name}", SecretStr("k"), url))

    async def on_delta(self, delta: TextDelta | ThinkingDelta) -> None:
        self.told.append(delta.text)

    async def on_retry(self, again: Try) -> None:
        self.tries.append(again)
        self.told.append(f"try {again.number}: {again.model}")

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def asked(self) -> dict[str, int]:
        return {name: len(server.requests) for name, server in self.servers.items() if server.requests}


@pytest.fixture
async def rig(redis_url: str) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        servers = {name: await stack.enter_async_context(model_server()) for name in "abc"}
        client = connect(redis_url, timeout_seconds=5, max_connections=50)
        yield Rig(servers, client)
        await client.aclose()
        await close_connections()


async def test_a_model_that_answers_is_the_only_one_asked(rig: Rig) -> None:
    rig.servers["a"].then(Turn(["Good ", "day"]))
    assert (await rig.complete()).content == "Good day"
    assert rig.told == ["Good ", "day"]
    assert rig.asked() == {"a": 1}


async def test_the_next_model_answers_and_the_stream_is_told_that_the_text_so_far_is_void(rig: Rig) -> None:
    rig.servers["a"].then(Turn(["Half "], end="cut"), Turn(["Hal"], end="cut"))
    rig.servers["b"].then(Turn(["Whole"]))
    assert (await rig.complete()).content == "Whole"
    assert rig.told == ["Half ", "try 2: openai/a", "Hal", "try 3: openai/b", "Whole"]
    assert all("did not answer as it should" in again.cause for again in rig.tries)
    assert rig.tries[1].as_json() == {
        "model": "openai/b", "try": 3, "cause": rig.tries[1].cause, "after_seconds": 0.0
    }  # fmt: skip


async def test_an_open_breaker_sends_all_workers_calls_to_the_next_model_at_once(rig: Rig) -> None:
    rig.servers["a"].then(*[DOWN] * 6)
    for _ in range(6):
        await rig.complete(attempts=1)
    rig.told.clear()
    await rig.complete()
    assert rig.asked() == {"a": 6, "b": 7}
    assert rig.told[0] == "try 2: openai/b", "of the model that was not asked nothing is said but the cause"
    assert rig.tries[-1].cause.startswith("openai/a: its provider kept failing")
    assert "left alone for 60 s" in rig.tries[-1].cause
    assert "http" not in rig.tries[-1].cause, "where our servers stand is not the clients' affair"
    assert "overloaded" in rig.tries[-2].cause, "whoever opens it says why"


async def test_a_breaker_that_opens_amid_the_tries_ends_them(rig: Rig) -> None:
    rig.servers["a"].then(*[DOWN] * 9)
    await rig.complete(attempts=9)
    assert rig.asked() == {"a": 6, "b": 1}


async def test_a_provider_that_is_not_there_at_all_is_passed_over(rig: Rig) -> None:
    for _ in range(4):
        await rig.complete(["nowhere", "b"])
    assert sum(again.model == "openai/nowhere" for again in rig.tries) == 3, "three calls' second tries"
    assert rig.asked() == {"b": 4}


async def test_where_every_model_is_left_alone_the_time_of_the_first_probe_is_known(rig: Rig) -> None:
    one, none = BreakerPolicy(failures=0, open_seconds=40), BreakerPolicy(failures=0, open_seconds=20)
    rig.servers["a"].then(DOWN)
    rig.servers["b"].then(DOWN)
    with pytest.raises(ModelsUnavailable):
        await rig.complete(["a"], policy=one)
    with pytest.raises(ModelsUnavailable) as caught:
        await rig.complete(["a", "b"], policy=none)
    error = caught.value
    seconds, microseconds = await rig.client.time()
    assert error.code is ErrorCode.MODEL_UNAVAILABLE
    assert error.retry_after == pytest.approx(20, abs=1)
    assert error.retry_at == pytest.approx(seconds + microseconds / 1e6 + 20, abs=1)
    assert "openai/a" in error.detail
    assert "openai/b" in error.detail


async def test_the_same_call_made_again_at_that_time_is_answered(rig: Rig) -> None:
    policy = BreakerPolicy(failures=0, open_seconds=0.3)
    rig.servers["a"].then(DOWN, Turn(["Back"]), Turn(["Still there"]))
    with pytest.raises(ModelsUnavailable) as caught:
        await rig.complete(["a"], policy=policy)
    with pytest.raises(ModelsUnavailable) as too_early:
        await rig.complete(["a"], policy=policy)
    assert too_early.value.retry_at == caught.value.retry_at
    seconds, microseconds = await rig.client.time()
    await asyncio.sleep(caught.value.retry_at - seconds - microseconds / 1e6)
    assert (await rig.complete(["a"], policy=policy)).content == "Back"
    assert (await rig.complete(["a"], policy=policy)).content == "Still there"


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (Failure(400, "tools[0] is wrong"), ErrorCode.MODEL_ERROR),
        (Failure(422, "no such field"), ErrorCode.MODEL_ERROR),
        (Failure(400, "This model's maximum context length is 8192 tokens."), ErrorCode.CONTEXT_EXCEEDED),
    ],
    ids=["malformed", "unknown field", "too long"],
)
async def test_a_request_that_is_wrong_itself_goes_to_nobody_else(rig: Rig, refusal: Failure, code: ErrorCode) -> None:
    rig.servers["a"].then(refusal)
    with pytest.raises(ModelError) as caught:
        await rig.complete()
    assert caught.value.code is code
    assert rig.asked() == {"a": 1}


@pytest.mark.parametrize(
    "refusal",
    [
        Failure(401, "bad key"),
        Failure(403, "not for you"),
        Failure(404, "no such model"),
        Failure(402, "insufficient credits"),
        Failure(429, "You exceeded your current quota", "insufficient_quota"),
    ],
    ids=["key", "rights", "name", "credit", "quota"],
)
async def test_a_model_that_cannot_be_had_is_replaced_and_the_log_says_so(
    rig: Rig, refusal: Failure, caplog: pytest.LogCaptureFixture
) -> None:
    rig.servers["a"].then(refusal)
    rig.servers["b"].then(Turn(["Here"]))
    assert (await rig.complete()).content == "Here"
    assert rig.asked() == {"a": 1, "b": 1}
    assert refusal.message in caplog.text


async def test_what_only_a_fallback_refuses_the_one_after_it_may_take(rig: Rig) -> None:
    rig.servers["a"].then(DOWN, DOWN)
    rig.servers["b"].then(Failure(400, "no tools with this model"))
    rig.servers["c"].then(Turn(["Mine"]))
    assert (await rig.complete(["a", "b", "c"])).content == "Mine"


async def test_where_all_fail_for_good_the_first_models_error_comes_out(rig: Rig) -> None:
    rig.servers["a"].then(Failure(401, "bad key"))
    rig.servers["b"].then(Failure(404, "no such model"))
    with pytest.raises(ModelError, match="bad key") as caught:
        await rig.complete()
    assert caught.value.code is ErrorCode.MODEL_AUTH


async def test_a_model_that_will_be_back_goes_before_one_that_is_gone_for_good(rig: Rig) -> None:
    rig.servers["a"].then(Failure(401, "bad key"))
    rig.servers["b"].then(DOWN)
    with pytest.raises(ModelsUnavailable, match="bad key"):
        await rig.complete(policy=BreakerPolicy(failures=0))


async def test_a_short_wait_that_the_provider_asks_for_is_kept(rig: Rig) -> None:
    rig.servers["a"].then(Failure(429, "slow down", headers={"retry-after-ms": "1500"}), Turn(["Now"]))
    assert (await rig.complete()).content == "Now"
    assert rig.pauses == [1.5]


def _in_an_hour() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)


@pytest.mark.parametrize(
    "header", [("Retry-After", "3600"), ("retry-after-ms", "3600000"), ("Retry-After", "date")], ids=lambda h: h[1]
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_long_wait_is_no_failure_but_leaves_the_model_alone_till_then(
    rig: Rig, header: tuple[str, str], status: int
) -> None:
    name, value = header[0], _in_an_hour() if header[1] == "date" else header[1]
    rig.servers["a"].then(Failure(status, "not now", headers={name: value}))
    for _ in range(2):
        with pytest.raises(ModelsUnavailable) as caught:
            await rig.complete(["a"])
        assert caught.value.retry_after == pytest.approx(3600, abs=60)
    await rig.complete(["a", "b"])
    assert rig.asked() == {"a": 1, "b": 1}


async def test_rate_limits_never_open_the_breaker(rig: Rig) -> None:
    rig.servers["a"].then(*[Failure(429, "slow down")] * 10, Turn(["At last"]))
    for _ in range(5):
        await rig.complete(["a", "b"])
    assert (await rig.complete(["a"])).content == "At last"
