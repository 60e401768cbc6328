"""The circuit breaker where its model (test_breaker_machine.py) does not reach: leases, Redis away, the reader."""

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.breaker import deployment, deployments, model_of, seconds_held
from shared.config import LlmSettings
from shared.errors import ErrorCode
from shared.redis import connect
from tests.support.ports import free_port
from tests.support.valkey import Valkey
from tests.support.waiting import until
from workflow.llm.breaker.breaker import LONGEST_AWAY_SECONDS, Breaker, BreakerPolicy, HeldBack
from workflow.llm.types import ModelError

POLICY = BreakerPolicy(failures=1, open_seconds=1, probe_seconds=1.5)
DOWN = ModelError(ErrorCode.MODEL_UNAVAILABLE, "down", retryable=True, outage=True)


def later(seconds: float) -> ModelError:
    return ModelError(ErrorCode.MODEL_RATE_LIMITED, "not now", retryable=True, retry_after=seconds)


class Provider:
    """Counts calls; `going_on` and `asking` end when `goes_on` is set."""

    def __init__(self) -> None:
        self.calls = 0
        self.goes_on = asyncio.Event()

    async def down(self) -> str:
        self.calls += 1
        raise DOWN

    async def well(self) -> str:
        self.calls += 1
        return "well"

    async def going_on(self) -> str:
        self.calls += 1
        await self.goes_on.wait()
        return "at last"

    async def asking(self, seconds: float) -> str:
        raise later(seconds if await self.going_on() else 0)


async def opened(client: Redis, policy: BreakerPolicy = POLICY) -> Breaker:
    breaker = Breaker(client, policy)
    for _ in range(policy.failures + 1):
        with pytest.raises((ModelError, HeldBack)):
            await breaker.guard("x", Provider().down)
    return breaker


async def admitted(client: Redis) -> None:
    """Returns when the breaker holds nothing back."""
    async with asyncio.timeout(20):
        while held := await seconds_held(client, ["x"]):
            await asyncio.sleep(held)


async def test_more_than_five_failures_in_a_row_open_it_for_a_minute(client: Redis) -> None:
    breaker, provider = Breaker(client, BreakerPolicy()), Provider()
    for _ in range(5):
        with pytest.raises(ModelError):
            await breaker.guard("x", provider.down)
    with pytest.raises(HeldBack) as sixth:
        await breaker.guard("x", provider.down)
    assert sixth.value.__cause__ is DOWN
    with pytest.raises(HeldBack) as seventh:
        await breaker.guard("x", provider.down)
    assert provider.calls == 6
    assert 59 < seventh.value.retry_after <= sixth.value.retry_after <= 60.01
    assert seventh.value.retry_at == sixth.value.retry_at


async def test_a_call_made_at_the_time_named_is_the_probe_and_a_hundred_beside_it_are_none(client: Redis) -> None:
    breaker, provider = await opened(client), Provider()
    with pytest.raises(HeldBack) as held:
        await breaker.guard("x", provider.well)
    now = await client.time()
    await asyncio.sleep(held.value.retry_at - now[0] - now[1] / 1e6)
    workers = [Breaker(client, POLICY) for _ in range(100)]
    calls = [asyncio.create_task(worker.guard("x", provider.going_on)) for worker in workers]
    await until(lambda: sum(call.done() for call in calls) == 99)
    provider.goes_on.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert provider.calls == 1
    assert outcomes.count("at last") == 1
    assert sum(isinstance(outcome, HeldBack) for outcome in outcomes) == 99
    assert await breaker.guard("x", provider.well) == "well"


async def test_a_long_probe_keeps_its_lease(client: Redis) -> None:
    breaker, provider = await opened(client), Provider()
    await admitted(client)
    probe = asyncio.create_task(breaker.guard("x", provider.going_on))
    await until(lambda: provider.calls == 1)
    first = int(await client.hget(keys.breaker("x"), "probe_until") or 0)

    async def outlived() -> bool:
        seconds, microseconds = await client.time()
        return seconds * 1000 + microseconds / 1000 > first + 100

    await until(outlived)
    with pytest.raises(HeldBack):
        await breaker.guard("x", provider.well)
    provider.goes_on.set()
    assert await probe == "at last"


async def test_a_probe_that_is_canceled_makes_way_for_the_next_at_once(client: Redis) -> None:
    breaker, provider = await opened(client, replace(POLICY, probe_seconds=600)), Provider()
    await admitted(client)
    probe = asyncio.create_task(breaker.guard("x", provider.going_on))
    await until(lambda: provider.calls == 1)
    probe.cancel()
    await asyncio.wait({probe})
    assert await breaker.guard("x", provider.well) == "well"


async def test_the_longer_of_two_times_asked_for_holds(client: Redis) -> None:
    breaker, provider, other = Breaker(client, POLICY), Provider(), Provider()
    calls = [
        asyncio.create_task(breaker.guard("x", partial(asked.asking, seconds)))
        for asked, seconds in ((provider, 500), (other, 200))
    ]
    await until(lambda: provider.calls == other.calls == 1)
    provider.goes_on.set()
    [first] = await asyncio.gather(calls[0], return_exceptions=True)
    other.goes_on.set()
    [second] = await asyncio.gather(calls[1], return_exceptions=True)
    assert isinstance(first, HeldBack)
    assert isinstance(second, HeldBack)
    assert first.retry_at == second.retry_at
    assert 490 < second.retry_after <= 500.01


async def test_nobody_is_left_alone_for_more_than_a_day(client: Redis) -> None:
    async def asks() -> str:
        raise later(float("inf"))

    with pytest.raises(HeldBack) as held:
        await Breaker(client, POLICY).guard("x", asks)
    assert held.value.retry_after == pytest.approx(LONGEST_AWAY_SECONDS, abs=1)
    assert await client.pttl(keys.breaker("x")) > 1000 * LONGEST_AWAY_SECONDS


async def test_a_model_of_this_process_has_no_breaker(client: Redis) -> None:
    breaker = Breaker(client, POLICY)
    for _ in range(3):
        with pytest.raises(ModelError):
            await breaker.guard(None, Provider().down)
    assert await breaker.guard(None, Provider().well) == "well"
    assert await client.dbsize() == 0


@pytest.mark.parametrize("call", ["well", "down"])
async def test_without_redis_calls_go_out(call: str) -> None:
    client = connect(f"redis://127.0.0.1:{free_port()}/0", timeout_seconds=1, max_connections=2)
    breaker, provider = Breaker(client, POLICY), Provider()
    outcomes: list[object] = []
    for _ in range(4):
        outcomes += await asyncio.gather(breaker.guard("x", getattr(provider, call)), return_exceptions=True)
    assert outcomes == [DOWN if call == "down" else "well"] * 4
    await client.aclose()


async def test_a_long_pause_is_kept_even_without_redis() -> None:
    client = connect(f"redis://127.0.0.1:{free_port()}/0", timeout_seconds=1, max_connections=2)

    async def asks() -> str:
        raise later(500)

    with pytest.raises(HeldBack) as held:
        await Breaker(client, POLICY).guard("x", asks)
    assert held.value.retry_after == 500
    await client.aclose()


async def test_redis_may_go_and_come_back_while_a_call_is_under_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    valkey, provider = Valkey(tmp_path), Provider()
    valkey.start()
    try:
        client = connect(valkey.url, timeout_seconds=1, max_connections=2)
        breaker = await opened(client, replace(POLICY, open_seconds=0.01, probe_seconds=0.05))
        await admitted(client)
        probe = asyncio.create_task(breaker.guard("x", provider.going_on))
        await until(lambda: provider.calls == 1)
        valkey.kill()
        await until(lambda: "cannot be asked" in caplog.text)  # a renewal
        valkey.start()
        provider.goes_on.set()
        assert await probe == "at last"
        assert await breaker.guard("x", provider.well) == "well"
        await client.aclose()
    finally:
        valkey.kill()


async def test_the_gateway_sees_what_a_run_would_meet(client: Redis) -> None:
    await opened(client, BreakerPolicy(failures=1))
    assert 59 < (await seconds_held(client, ["x"]) or 0) <= 60
    assert await seconds_held(client, ["x", "another"]) is None, "a fallback may be asked"
    assert await seconds_held(client, []) is None


def test_a_deployment_is_a_model_at_an_address_without_its_password() -> None:
    assert deployment("openai/x", None) == "openai/x"
    assert deployment("openai/x", "https://me:secret@host:8/v1") == "openai/x@https://host:8/v1"


@pytest.mark.parametrize("name", ["openai/x", "vertex_ai/claude@20250101"])
@pytest.mark.parametrize("base_url", [None, "http://host/v1", "https://host/@v1"])
def test_a_deployments_model_can_be_told_without_its_address(name: str, base_url: str | None) -> None:
    assert model_of(deployment(name, base_url)) == name


def test_the_gateway_knows_a_runs_deployments_where_the_settings_name_a_model() -> None:
    llm = LlmSettings(model="openai/a", fallback_models=["openai/b"])
    assert deployments(llm, None) == ["openai/a", "openai/b"]
    assert deployments(llm, "openai/c") == ["openai/c", "openai/b"]
    assert deployments(LlmSettings(), None) == []
    at = LlmSettings(model="openai/a", base_url="http://host/v1")
    assert deployments(at, None) == ["openai/a@http://host/v1"]
