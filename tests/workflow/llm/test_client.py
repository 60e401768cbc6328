"""The LiteLLM client against a scripted server over real HTTP."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest
from pydantic import SecretStr

from shared.errors import AppError, ErrorCode
from tests.support.model_server import Failure, Hang, ModelServer, Reply, Turn, model_server
from workflow.llm.client import DEFAULT_CONTEXT_TOKENS, LiteLLMModel, ModelOptions, close_connections
from workflow.llm.types import ModelError, ModelRequest, ModelResponse

REQUEST = ModelRequest(messages=[{"role": "user", "content": "Hello"}])
TOOL = {"type": "function", "function": {"name": "ls", "description": "Lists.", "parameters": {"type": "object"}}}


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with model_server() as server:
        yield server
        await close_connections()


def model(server: ModelServer, name: str = "openai/scripted", timeout_seconds: float = 5) -> LiteLLMModel:
    key = SecretStr("the-key")
    return LiteLLMModel(ModelOptions(name, key, server.api_url, None, timeout_seconds, "Set OPENAI_API_KEY."))


async def ask(server: ModelServer, reply: Reply, request: ModelRequest = REQUEST, **options: object) -> ModelResponse:
    server.then(reply)
    items = [item async for item in model(server, **options).stream(request)]  # type: ignore[arg-type]
    assert isinstance(items[-1], ModelResponse)
    return items[-1]


async def failure(server: ModelServer, reply: Reply, **options: object) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await ask(server, reply, **options)  # type: ignore[arg-type]
    return caught.value


async def test_the_request_carries_key_tools_and_settings(server: ModelServer) -> None:
    await ask(server, Turn(["ok"]), ModelRequest(REQUEST.messages, [TOOL], temperature=0.5, max_output_tokens=99))
    sent = server.requests[0]
    assert sent.headers["authorization"] == "Bearer the-key"
    assert sent.body["stream_options"] == {"include_usage": True}
    assert sent.body["tools"] == [TOOL]
    assert (sent.body["model"], sent.body["temperature"], sent.body["max_tokens"]) == ("scripted", 0.5, 99)


async def test_what_is_not_set_is_left_to_the_model(server: ModelServer) -> None:
    await ask(server, Turn(["ok"]))
    assert set(server.requests[0].body) == {"model", "messages", "stream", "stream_options"}


@pytest.mark.parametrize(
    ("reply", "code", "retryable"),
    [
        (Failure(401, "bad key"), ErrorCode.MODEL_AUTH, False),
        (Failure(403, "not for you"), ErrorCode.MODEL_AUTH, False),
        (Failure(429, "slow down"), ErrorCode.MODEL_RATE_LIMITED, True),
        (Failure(429, "You exceeded your current quota", "insufficient_quota"), ErrorCode.MODEL_RATE_LIMITED, False),
        (Failure(500, "oops"), ErrorCode.MODEL_UNAVAILABLE, True),
        (Failure(503, "overloaded"), ErrorCode.MODEL_UNAVAILABLE, True),
        (Failure(400, "This model's maximum context length is 8192 tokens."), ErrorCode.CONTEXT_EXCEEDED, False),
        (Failure(400, "the request exceeds the available context size"), ErrorCode.CONTEXT_EXCEEDED, False),
        (Failure(400, "tools[0] is wrong"), ErrorCode.MODEL_ERROR, False),
        (Failure(404, "no such model"), ErrorCode.MODEL_ERROR, False),
    ],
    ids=lambda value: value.status if isinstance(value, Failure) else None,
)
async def test_a_refusal_keeps_the_providers_words(
    server: ModelServer, reply: Failure, code: ErrorCode, retryable: bool
) -> None:
    error = await failure(server, reply)
    assert (error.code, error.retryable) == (code, retryable)
    assert reply.message in error.detail
    assert "litellm" not in error.detail.lower()
    assert len(server.requests) == 1, "the client itself tries once"


async def test_a_refused_key_says_which_to_set(server: ModelServer) -> None:
    error = await failure(server, Failure(401, "bad key"))
    assert error.detail == "openai/scripted: the provider wants another key (bad key). Set OPENAI_API_KEY."


@pytest.mark.parametrize(
    ("header", "value", "seconds"),
    [("Retry-After", "12", 12), ("retry-after-ms", "1500", 1.5), ("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
async def test_the_wait_that_a_provider_asks_for_is_kept(
    server: ModelServer, header: str, value: str, seconds: float
) -> None:
    error = await failure(server, Failure(429, "slow down", headers={header: value}))
    assert error.retry_after == seconds


@pytest.mark.parametrize("end", ["cut", "malformed", "no_finish"])
async def test_a_stream_that_breaks_off_is_no_answer(server: ModelServer, end: str) -> None:
    error = await failure(server, Turn(["half"], end=end))  # type: ignore[arg-type]
    assert (error.code, error.retryable) == (ErrorCode.MODEL_UNAVAILABLE, True)


@pytest.mark.parametrize("reply", [Hang(), Turn(["half"], end="hang")], ids=["before", "amid"])
async def test_silence_ends_after_the_timeout(server: ModelServer, reply: Reply) -> None:
    error = await failure(server, reply, timeout_seconds=0.5)
    assert (error.code, error.retryable) == (ErrorCode.MODEL_UNAVAILABLE, True)
    await server.until(lambda: server.aborted == 1)


async def test_a_long_answer_may_take_longer_than_the_timeout(server: ModelServer) -> None:
    response = await ask(server, Turn(["on "] * 30, delay=0.05), timeout_seconds=1.2)
    assert response.content == "on " * 30


async def test_a_server_that_is_not_there_is_unavailable(server: ModelServer) -> None:
    unreachable = LiteLLMModel(ModelOptions("openai/x", SecretStr("k"), "http://127.0.0.1:1/v1"))
    with pytest.raises(ModelError) as caught:
        _ = [item async for item in unreachable.stream(REQUEST)]
    assert (caught.value.code, caught.value.retryable) == (ErrorCode.MODEL_UNAVAILABLE, True)


async def test_leaving_a_stream_aborts_the_request(server: ModelServer) -> None:
    server.then(Turn(["on "] * 10_000, delay=0.005))
    async with aclosing(model(server).stream(REQUEST)) as items:
        await anext(items)
    await server.until(lambda: server.aborted == 1)


@pytest.mark.parametrize("reply", [Hang(), Turn(["half"], end="hang")], ids=["before", "amid"])
async def test_cancelling_aborts_the_request(server: ModelServer, reply: Reply) -> None:
    task = asyncio.create_task(ask(server, reply))
    await server.until(lambda: len(server.requests) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.until(lambda: server.aborted == 1)


async def test_without_a_key_the_error_says_which_to_set(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    keyless = LiteLLMModel(ModelOptions("openai/x", None, server.api_url, how_to_set_key="Set OPENAI_API_KEY."))
    with pytest.raises(ModelError, match=r"Set OPENAI_API_KEY\.") as caught:
        _ = [item async for item in keyless.stream(REQUEST)]
    assert (caught.value.code, caught.value.retryable) == (ErrorCode.MODEL_AUTH, False)


async def test_a_cost_is_known_by_the_price_list_or_not_at_all(server: ModelServer) -> None:
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000, "total_tokens": 2_000_000}
    unknown = await ask(server, Turn(["ok"], usage=usage))
    known = await ask(server, Turn(["ok"], usage=usage), name="openai/gpt-4o-mini")
    assert unknown.usage.cost is None
    assert known.usage.cost == pytest.approx(0.15 + 0.60)


async def test_a_price_the_provider_reports_goes_before_the_price_list(server: ModelServer) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20, "cost": 0.25}
    assert (await ask(server, Turn(["ok"], usage=usage))).usage.cost == 0.25


async def test_the_finish_reason_is_the_models(server: ModelServer) -> None:
    assert (await ask(server, Turn(["cut short"], finish="length"))).finish_reason == "length"


async def test_with_a_base_url_any_name_is_taken(server: ModelServer) -> None:
    await ask(server, Turn(["ok"]), name="meta-llama/Llama-4")
    assert server.requests[0].body["model"] == "meta-llama/Llama-4"


def test_without_one_a_name_needs_its_provider() -> None:
    with pytest.raises(AppError, match="names no provider") as caught:
        LiteLLMModel(ModelOptions("llama-9000"))
    assert caught.value.code is ErrorCode.INVALID_CONFIG


def test_the_context_is_the_settings_or_the_models_or_a_common_one() -> None:
    options = ModelOptions("openai/gpt-4o-mini")
    assert LiteLLMModel(options).context_tokens == 128_000
    assert LiteLLMModel(replace(options, context_tokens=5_000)).context_tokens == 5_000
    assert LiteLLMModel(ModelOptions("openai/unheard-of")).context_tokens == DEFAULT_CONTEXT_TOKENS


async def test_no_bill_is_above_the_models_price(server: ModelServer) -> None:
    usage = {"prompt_tokens": 300_000, "completion_tokens": 1_000, "total_tokens": 301_000}
    long_prompts_cost_more = LiteLLMModel(ModelOptions("openai/gpt-6.1-sol", SecretStr("k"), server.api_url))
    response = await ask(server, Turn(["ok"], usage=usage), name="openai/gpt-6.1-sol")
    price = long_prompts_cost_more.price
    assert price is not None
    assert response.usage.cost is not None
    assert response.usage.cost <= 300_000 * price.input + 1_000 * price.output
    assert LiteLLMModel(ModelOptions("openai/unheard-of")).price is None


async def test_after_the_warm_up_a_call_imports_next_to_nothing(server: ModelServer) -> None:
    warm = model(server)
    await warm.warm_up()
    before = set(sys.modules)
    server.then(Turn(["ok"]))
    _ = [item async for item in warm.stream(REQUEST)]
    assert len(set(sys.modules) - before) < 30
    assert len(server.requests) == 1, "warming up calls nobody"


CALLS_AND_PRINTS_WHERE_IT_WENT = """
import asyncio, sys
from pydantic import SecretStr
from workflow.llm.client import LiteLLMModel, ModelOptions, close_connections
from workflow.llm.types import ModelError, ModelRequest

places = set()
def watch(event, args):
    if event == "socket.getaddrinfo":
        places.add(args[0])
    if event == "socket.connect":
        places.add(args[1][0] if isinstance(args[1], tuple) else args[1])
sys.addaudithook(watch)

async def main():
    for name in ("openai/x", "anthropic/claude-sonnet-5-5", "gemini/gemini-pro-latest"):
        model = LiteLLMModel(ModelOptions(name, SecretStr("k"), sys.argv[1]))
        await model.warm_up()
        try:
            _ = [item async for item in model.stream(ModelRequest([{"role": "user", "content": "Hi"}]))]
        except ModelError as error:
            pass
    await close_connections()
asyncio.run(main())
print(sorted(str(place) for place in places))
"""


async def test_nothing_is_asked_of_anyone_but_the_models_server(server: ModelServer) -> None:
    python = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CALLS_AND_PRINTS_WHERE_IT_WENT, server.url, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await python.communicate()
    assert output.decode().splitlines() == ["['127.0.0.1']"]


def test_importing_the_package_does_not_import_litellm() -> None:
    code = "import sys, workflow.llm.choose; print([m for m in ('litellm', 'openai') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
