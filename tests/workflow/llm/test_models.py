"""What every model must do, whoever stands behind it: the same tests for the LiteLLM client and the scripted model."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from shared.errors import ErrorCode
from tests.support.model_server import Call, Failure, ModelServer, Turn, model_server
from workflow.llm.client import LiteLLMModel, ModelOptions, close_connections
from workflow.llm.scripted import BrokenOff, ScriptedModel
from workflow.llm.types import (
    Model,
    ModelError,
    ModelRequest,
    ModelResponse,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    Usage,
)

REQUEST = ModelRequest(messages=[{"role": "user", "content": "Hello"}])
SPOKEN = ModelResponse("Hello dear world", usage=Usage(12, 3, 4))
CALLING = ModelResponse(
    "I look.",
    "What is there?",
    [ToolCall("call_a", "ls", '{"path": "/workspace"}'), ToolCall("call_b", "bash", '{"command": "pwd"}')],
    Usage(20, 9, 0),
    "tool_calls",
)
LIMITED = ModelError(ErrorCode.MODEL_RATE_LIMITED, "slow down", retryable=True, retry_after=7)
BROKEN = BrokenOff(ModelError(ErrorCode.MODEL_UNAVAILABLE, "cut", retryable=True), "Half an ")
Script = list[ModelResponse | BrokenOff | ModelError]


@dataclass(frozen=True)
class Rig:
    """Makes a model that answers by a script."""

    make: Callable[[Script], Model]
    server: ModelServer | None


@pytest.fixture(params=["litellm", "scripted"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    if request.param == "scripted":
        yield Rig(ScriptedModel, None)
        return
    async with model_server() as server:

        def make(script: Script) -> Model:
            server.then(*map(_reply, script))
            return LiteLLMModel(ModelOptions("openai/scripted", SecretStr("k"), server.api_url))

        yield Rig(make, server)
        await close_connections()


def _reply(turn: ModelResponse | BrokenOff | ModelError) -> Turn | Failure:
    if isinstance(turn, ModelError):
        return Failure(429, turn.detail, headers={"Retry-After": f"{turn.retry_after:g}"})
    if isinstance(turn, BrokenOff):
        return Turn(text=["Half ", "an "], end="cut")
    usage = {
        "prompt_tokens": turn.usage.input_tokens,
        "completion_tokens": turn.usage.output_tokens,
        "total_tokens": turn.usage.input_tokens + turn.usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": turn.usage.cached_tokens},
    }
    calls = [Call(call.name, call.arguments, call.id, fragments=3) for call in turn.tool_calls]
    return Turn(list(turn.content), list(turn.thinking), calls, usage=usage)


async def collect(model: Model) -> tuple[str, str, ModelResponse]:
    """The text and the thinking as streamed, and the response."""
    items = [item async for item in model.stream(REQUEST)]
    text = "".join(item.text for item in items if isinstance(item, TextDelta))
    thinking = "".join(item.text for item in items if isinstance(item, ThinkingDelta))
    assert isinstance(items[-1], ModelResponse)
    assert sum(isinstance(item, ModelResponse) for item in items) == 1
    return text, thinking, items[-1]


async def test_text_comes_in_pieces_and_then_as_a_whole(rig: Rig) -> None:
    text, thinking, response = await collect(rig.make([SPOKEN]))
    assert (text, thinking) == (response.content, "")
    assert response == SPOKEN


async def test_thinking_and_tool_calls_arrive_beside_the_text(rig: Rig) -> None:
    text, thinking, response = await collect(rig.make([CALLING]))
    assert (text, thinking) == ("I look.", "What is there?")
    assert response == CALLING


async def test_one_turn_follows_the_other(rig: Rig) -> None:
    model = rig.make([SPOKEN, CALLING])
    assert (await collect(model))[2] == SPOKEN
    assert (await collect(model))[2] == CALLING


async def test_a_refused_call_is_a_model_error_that_says_when_to_come_back(rig: Rig) -> None:
    with pytest.raises(ModelError, match="slow down") as caught:
        await collect(rig.make([LIMITED]))
    assert caught.value.code is ErrorCode.MODEL_RATE_LIMITED
    assert (caught.value.retryable, caught.value.retry_after) == (True, 7)


async def test_a_broken_stream_gives_what_it_had_and_then_a_retryable_error(rig: Rig) -> None:
    stream = rig.make([BROKEN]).stream(REQUEST)
    assert [await anext(stream), await anext(stream)] == [TextDelta("Half "), TextDelta("an ")]
    with pytest.raises(ModelError) as caught:
        await anext(stream)
    assert (caught.value.code, caught.value.retryable) == (ErrorCode.MODEL_UNAVAILABLE, True)


async def test_a_stream_can_be_left_early_and_the_model_used_again(rig: Rig) -> None:
    model = rig.make([ModelResponse("a long answer " * 200), SPOKEN])
    async with aclosing(model.stream(REQUEST)) as items:
        async for item in items:
            assert isinstance(item, TextDelta)
            break
    assert (await collect(model))[2] == SPOKEN


async def test_the_scripted_model_fails_loudly_beyond_its_script() -> None:
    model = ScriptedModel([SPOKEN])
    await collect(model)
    with pytest.raises(AssertionError, match=r"request 2 is beyond the script: .*Hello"):
        await collect(model)
    assert model.requests == [REQUEST, REQUEST]
