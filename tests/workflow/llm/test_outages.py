"""Which failures are the provider's own, and count for its circuit breaker: over HTTP, in the words of two APIs."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from tests.support.model_server import Failure, Hang, ModelServer, Reply, Turn, model_server
from workflow.llm.client import LiteLLMModel, ModelOptions, close_connections
from workflow.llm.types import ModelError, ModelRequest

REQUEST = ModelRequest(messages=[{"role": "user", "content": "Hello"}])


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with model_server() as server:
        yield server
        await close_connections()


@pytest.fixture(params=["openai/scripted", "anthropic/claude-sonnet-5-5"])
def model(request: pytest.FixtureRequest, server: ModelServer) -> LiteLLMModel:
    url = server.api_url if request.param.startswith("openai") else server.url
    return LiteLLMModel(ModelOptions(request.param, SecretStr("k"), url, timeout_seconds=1))


async def failure(model: LiteLLMModel, request: ModelRequest = REQUEST) -> ModelError:
    with pytest.raises(ModelError) as caught:
        _ = [item async for item in model.stream(request)]
    return caught.value


@pytest.mark.parametrize(
    "reply",
    [
        Failure(500),
        Failure(502),
        Failure(503),
        Failure(529),
        Hang(),
        Turn(["half"], end="hang"),
        Turn(["half"], end="cut"),
        Turn(["half"], end="no_finish"),
        Turn(["half"], end="overloaded"),
    ],
    ids=lambda reply: reply.status if isinstance(reply, Failure) else getattr(reply, "end", "silence"),
)
async def test_the_providers_own_failures_count(server: ModelServer, model: LiteLLMModel, reply: Reply) -> None:
    server.then(reply)
    error = await failure(model)
    assert (error.outage, error.retryable) == (True, True)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 409, 413, 422, 429])
async def test_what_it_refuses_does_not(server: ModelServer, model: LiteLLMModel, status: int) -> None:
    server.then(Failure(status))
    error = await failure(model)
    assert not error.outage
    assert error.retryable == (status in (408, 409, 429))


@pytest.mark.parametrize("name", ["openai/scripted", "anthropic/claude-sonnet-5-5"])
async def test_a_server_that_is_not_there_counts(name: str) -> None:
    error = await failure(LiteLLMModel(ModelOptions(name, SecretStr("k"), "http://127.0.0.1:1")))
    assert error.outage
    await close_connections()


async def test_a_request_that_the_client_stumbles_over_is_nobodys_outage(
    server: ModelServer, model: LiteLLMModel
) -> None:
    tools = [{"type": "function", "function": {"name": object()}}]
    error = await failure(model, ModelRequest(REQUEST.messages, tools))
    assert not error.outage
    assert not server.requests, "nobody was asked"


async def test_the_reason_is_in_the_providers_words(server: ModelServer, model: LiteLLMModel) -> None:
    server.then(Failure(503, "it's overfull"))
    assert "(it's overfull)" in (await failure(model)).detail
