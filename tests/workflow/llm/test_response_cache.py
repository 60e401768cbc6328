"""Answers that are kept: for the very same request at temperature 0, and for nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.config import AgentsSettings
from shared.redis import connect
from tests.support.ports import free_port
from workflow.llm.response_cache import CachedModel, InMemory, InRedis, ResponseCache, response_cache
from workflow.llm.scripted import ScriptedModel
from workflow.llm.types import NO_USAGE, ModelRequest, ModelResponse, TextDelta, ToolCall, Usage

REQUEST = ModelRequest([{"role": "user", "content": "2 + 2"}], temperature=0)
FOUR = ModelResponse("Four.", tool_calls=[ToolCall("c1", "look", "{}")], usage=Usage(10, 5, cost=0.01))
FIVE = ModelResponse("Five.", usage=Usage(10, 5, cost=0.01))


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest, client: Redis) -> ResponseCache:
    found = response_cache(AgentsSettings(response_cache=request.param), client)
    assert found is not None
    return found


async def asked(model: CachedModel, request: ModelRequest) -> list[Any]:
    return [item async for item in model.stream(request)]


async def answers(
    cache: ResponseCache, requests: Sequence[ModelRequest], script: Sequence[Any] = (FOUR, FIVE), **other: Any
) -> tuple[list[ModelResponse], int]:
    """To each request, and how often the model was asked. `other`: another workspace for the last of them."""
    model = ScriptedModel(script)
    found = []
    for place, request in enumerate(requests):
        workspace = other.get("workspace", "w") if place == len(requests) - 1 else "w"
        found.append((await asked(CachedModel(model, cache, workspace), request))[-1])
    return found, len(model.requests)


async def test_the_same_request_is_asked_once_and_its_answer_costs_nothing_again(cache: ResponseCache) -> None:
    (first, second), count = await answers(cache, [REQUEST, REQUEST])
    assert count == 1
    assert (first, second) == (FOUR, replace(FOUR, usage=NO_USAGE))


async def test_what_is_kept_streams_too(cache: ResponseCache) -> None:
    model = CachedModel(ScriptedModel([FOUR]), cache, "w")
    await asked(model, REQUEST)
    assert await asked(model, REQUEST) == [TextDelta("Four."), replace(FOUR, usage=NO_USAGE)]


@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, messages=[{"role": "user", "content": "2 + 3"}]),
        replace(REQUEST, tools=[{"type": "function"}]),
        replace(REQUEST, max_output_tokens=10),
    ],
)
async def test_another_request_is_asked(cache: ResponseCache, other: ModelRequest) -> None:
    assert await answers(cache, [REQUEST, other]) == ([FOUR, FIVE], 2)


@pytest.mark.parametrize("temperature", [None, 0.1])
async def test_answers_that_vary_are_not_kept(cache: ResponseCache, temperature: float | None) -> None:
    request = replace(REQUEST, temperature=temperature)
    assert await answers(cache, [request, request]) == ([FOUR, FIVE], 2)


async def test_a_cut_answer_is_not_kept(cache: ResponseCache) -> None:
    cut = replace(FOUR, finish_reason="length")
    assert await answers(cache, [REQUEST, REQUEST], [cut, FIVE]) == ([cut, FIVE], 2)


async def test_nothing_is_shared_between_workspaces(cache: ResponseCache) -> None:
    assert await answers(cache, [REQUEST, REQUEST], workspace="other") == ([FOUR, FIVE], 2)


async def test_memory_keeps_the_answers_used_last() -> None:
    cache = InMemory(most=2)
    for name in ("a", "b"):
        await cache.put(name, name.encode())
    await cache.get("a")
    await cache.put("c", b"c")
    assert [await cache.get(name) for name in ("a", "b", "c")] == [b"a", None, b"c"]


async def test_while_redis_is_away_the_model_is_asked() -> None:
    async with connect(f"redis://127.0.0.1:{free_port()}/0", timeout_seconds=1, max_connections=2) as away:
        assert await answers(InRedis(away), [REQUEST, REQUEST]) == ([FOUR, FIVE], 2)


def test_it_is_off_by_default(client: Redis) -> None:
    assert response_cache(AgentsSettings(), client) is None
