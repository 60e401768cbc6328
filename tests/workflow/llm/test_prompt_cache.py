"""Prompt-cache marks and keys, as they go over the wire."""

import copy
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.support.model_server import ModelServer, Turn, model_server
from workflow.llm.client import LiteLLMModel, ModelOptions, close_connections
from workflow.llm.prompt_cache import LEAST_TOKENS, MARK, marked
from workflow.llm.types import ModelRequest, ModelResponse, Price, Usage

JSON = dict[str, Any]
SONNET, HAIKU = "anthropic/claude-sonnet-5-5", "anthropic/claude-haiku-4-5"
LONG = "All that an agent should know. " * 600  # some 4,500 tokens


def tool(name: str) -> JSON:
    parameters = {"type": "object", "properties": {"path": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "description": LONG, "parameters": parameters}}


def called(*ids: str) -> JSON:
    calls = [{"id": i, "type": "function", "function": {"name": "ls", "arguments": "{}"}} for i in ids]
    return {"role": "assistant", "content": "I look.", "tool_calls": calls}


def result(call_id: str, content: str = "a.txt") -> JSON:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


TOOLS = [tool("ls"), tool("cat")]
OPENING = [{"role": "system", "content": LONG}, {"role": "user", "content": "What is there?"}]
SECOND = [*OPENING, called("a", "b"), result("a"), result("b")]
THIRD = [*SECOND, called("c"), result("c")]


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with model_server() as server:
        yield server
        await close_connections()


async def ask(server: ModelServer, name: str, messages: list[JSON], tools: list[JSON], **usage: int) -> ModelResponse:
    server.then(Turn(["ok"], usage={"input_tokens": 10, "output_tokens": 1, **usage}))
    model = LiteLLMModel(ModelOptions(name, SecretStr("k"), server.url))
    items = [item async for item in model.stream(ModelRequest(messages, tools, cache_key="thread"))]
    assert isinstance(items[-1], ModelResponse)
    return items[-1]


def blocks(body: JSON) -> list[JSON]:
    """What Anthropic reads, in its order."""
    return [*body.get("tools", []), *body["system"], *(block for m in body["messages"] for block in m["content"])]


def marks(body: JSON) -> list[int]:
    """The places of the marked blocks."""
    places = [place for place, block in enumerate(blocks(body)) if block.get("cache_control") == MARK]
    assert json.dumps(body).count("cache_control") == len(places)
    return places


async def test_tools_system_prompt_and_the_last_two_turns_are_marked(server: ModelServer) -> None:
    await ask(server, SONNET, THIRD, TOOLS)
    body = server.requests[0].body
    read = blocks(body)
    assert [read[place].get("name") or read[place]["type"] for place in marks(body)] == [
        "cat", "text", "tool_result", "tool_result",
    ]  # fmt: skip
    assert [read[place].get("tool_use_id") for place in marks(body)[2:]] == ["b", "c"], "of each turn the last result"


async def test_each_request_finds_what_the_one_before_has_stored(server: ModelServer) -> None:
    for messages in (OPENING, SECOND, THIRD):
        await ask(server, SONNET, messages, TOOLS)
    bodies = [request.body for request in server.requests]
    for earlier, later in itertools.pairwise(bodies):
        end = marks(earlier)[-1]
        assert end in marks(later)
        assert _unmarked(blocks(earlier))[: end + 1] == _unmarked(blocks(later))[: end + 1]


def _unmarked(read: list[JSON]) -> list[JSON]:
    return [{name: value for name, value in block.items() if name != "cache_control"} for block in read]


async def test_what_the_model_does_not_store_bears_no_mark(server: ModelServer) -> None:
    short = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    await ask(server, SONNET, short, [])
    middling = [{"role": "system", "content": LONG[: 1000 * 4]}, {"role": "user", "content": "Hello"}]
    await ask(server, SONNET, middling, [])
    await ask(server, HAIKU, middling, [])
    assert [len(marks(request.body)) for request in server.requests] == [0, 2, 0]


async def test_tokens_written_to_the_cache_are_counted_and_paid(server: ModelServer) -> None:
    usage = {"input_tokens": 100, "cache_creation_input_tokens": 2000, "cache_read_input_tokens": 5000}
    response = await ask(server, SONNET, OPENING, [], **usage, output_tokens=50)
    cost = 100 * 2e-6 + 2000 * 2.5e-6 + 5000 * 1e-7 + 50 * 1e-5
    assert response.usage.cost == pytest.approx(cost)
    assert response.usage == Usage(7100, 50, 5000, response.usage.cost, 2000)
    price = LiteLLMModel(ModelOptions(SONNET)).price
    assert price == Price(2.5e-6, 1e-5)
    assert cost <= 7100 * price.input + 50 * price.output
    assert (response.usage + response.usage).cache_write_tokens == 4000
    assert response.usage.as_json()["cache_write_tokens"] == 2000


async def test_openai_itself_gets_the_conversations_key_and_a_stable_beginning(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.api_url)
    model = LiteLLMModel(ModelOptions("openai/gpt-4o-mini", SecretStr("k")))
    for messages in (OPENING, SECOND):
        server.then(Turn(["ok"]))
        _ = [item async for item in model.stream(ModelRequest(messages, TOOLS, cache_key="thread"))]
    first, second = (request.body for request in server.requests)
    assert first["prompt_cache_key"] == second["prompt_cache_key"] == "thread"
    assert first["tools"] == second["tools"] == TOOLS
    assert first["messages"] == second["messages"][: len(OPENING)] == OPENING


@pytest.mark.parametrize("name", ["openai/scripted", "mistral/mistral-medium-latest", "groq/openai/gpt-oss-120b"])
async def test_other_servers_get_neither(server: ModelServer, name: str) -> None:
    server.then(Turn(["ok"]))
    model = LiteLLMModel(ModelOptions(name, SecretStr("k"), server.api_url))
    _ = [item async for item in model.stream(ModelRequest(OPENING, TOOLS, cache_key="thread"))]
    assert "prompt_cache_key" not in server.requests[0].body
    assert "cache_control" not in json.dumps(server.requests[0].body)


MESSAGE = st.one_of(
    st.builds(lambda text: {"role": "user", "content": text}, st.text(max_size=3000)),
    st.just(called("x")),
    st.builds(lambda text: result("x", text), st.text(max_size=3000)),
    st.just({"role": "system", "content": "Also:"}),
)


@given(st.lists(MESSAGE, max_size=12), st.integers(0, 2), st.sampled_from([LEAST_TOKENS, 4096]))
def test_whatever_the_conversation_there_are_four_marks_at_most_and_nothing_else_changes(
    messages: list[JSON], tools: int, least: int
) -> None:
    before = copy.deepcopy((messages, TOOLS))
    marked_messages, marked_tools = marked(messages, TOOLS[:tools], least)
    assert (messages, TOOLS) == before
    assert _unmarked(marked_messages) == messages
    assert _unmarked(marked_tools) == TOOLS[:tools]
    bearing = [m for m in [*marked_tools, *marked_messages] if "cache_control" in m]
    assert len(bearing) <= 4
    assert all(m["content"].strip() and m["role"] != "assistant" for m in bearing if "role" in m)
