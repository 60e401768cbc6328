"""What a worker's metrics say of its work, and that nobody outside can make up their labels."""

import asyncio
from dataclasses import fields

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from shared.errors import ErrorCode
from shared.log import bound
from shared.metrics import exposition
from shared.types import RunStatus
from tests.support.metrics import label_values, value
from tests.workflow.fleet import Fleet
from workflow import genai
from workflow.engine.durable import durable
from workflow.engine.step import Step
from workflow.llm.types import ModelError, ModelRequest, ModelResponse, ToolCall, Usage
from workflow.observe import MAX_MODELS, Observer
from workflow.tool.base import OutcomeUnknown, ToolResult

REQUEST = ModelRequest([{"role": "user", "content": "Hello."}], temperature=0.5, cache_key="thread")


def text_of(observer: Observer) -> str:
    return exposition(observer.metrics.registry).decode()


def ask(observer: Observer, model: str) -> None:
    with observer.model_call(model, REQUEST) as call:
        call.delta()
        call.response = ModelResponse("Hi.", usage=Usage(10, 5, cost=0.25))


def fail(observer: Observer, model: str) -> None:
    with pytest.raises(ModelError), observer.model_call(model, REQUEST):
        raise ModelError(ErrorCode.MODEL_AUTH, "No.")


def test_models_that_never_answer_are_no_labels() -> None:
    observer = Observer(models={"configured"})
    fail(observer, "configured")
    for number in range(100):
        fail(observer, f"made-up-{number}")
    ask(observer, "asked-for")
    text = text_of(observer)
    assert label_values(text, "model") == {"configured", "asked-for", "other"}
    assert value(text, "trunkline_llm_calls_total", model="other", outcome="model_auth") == 100
    assert value(text, "trunkline_llm_calls_total", model="asked-for", outcome="ok") == 1
    assert value(text, "trunkline_llm_tokens_total", model="asked-for", direction="input") == 10
    assert value(text, "trunkline_llm_cost_usd_total", model="asked-for") == 0.25
    assert value(text, "trunkline_llm_ttft_seconds_count", model="asked-for") == 1


def test_however_many_models_answer_their_labels_are_few() -> None:
    observer = Observer()
    for number in range(MAX_MODELS + 20):
        ask(observer, f"model-{number}")
    assert len(label_values(text_of(observer), "model")) == MAX_MODELS + 1


def test_a_held_back_model_is_told_of_until_it_answers() -> None:
    observer = Observer(models={"m"})
    observer.held_back("m", 1234.5)
    assert value(text_of(observer), "trunkline_llm_breaker_until_seconds", model="m") == 1234.5
    ask(observer, "m")
    assert value(text_of(observer), "trunkline_llm_breaker_until_seconds", model="m") == 0


async def test_tool_calls_are_counted_by_tool_and_outcome() -> None:
    observer = Observer(tools={"bash"})
    with observer.tool_call("bash", "c1", "{}") as run:
        run.result = ToolResult(ok=True, content="")
    with observer.tool_call("bash", "c2", "{}") as run:
        run.result = ToolResult.error("denied", "No.")
    with observer.tool_call("made-up", "c3", "{}") as run:
        run.result = ToolResult.error("invalid_arguments", "No such tool.")
    with pytest.raises(OutcomeUnknown), observer.tool_call("bash", "c4", "{}"):
        raise OutcomeUnknown("Nobody knows.")
    with pytest.raises(asyncio.CancelledError), observer.tool_call("bash", "c5", "{}"):
        raise asyncio.CancelledError
    with observer.tool_call("bash", "c6", "{}"):
        pass  # looked after at a crash, and never begun: its run is counted when it is made
    text = text_of(observer)
    assert label_values(text, "tool") == {"bash", "other"}
    for outcome in ("ok", "error", "unknown", "stopped"):
        assert value(text, "trunkline_tool_calls_total", tool="bash", outcome=outcome) == 1
    assert value(text, "trunkline_tool_calls_total", tool="other", outcome="error") == 1
    assert value(text, "trunkline_tool_duration_seconds_count", tool="bash") == 4


async def test_a_run_and_what_it_calls_know_the_request_that_asked_for_it(client) -> None:  # type: ignore[no-untyped-def]
    fleet = Fleet(client)

    async def child(step: Step, input: object) -> str:
        return "done"

    async def parent(step: Step, input: object) -> object:
        return await step.call("function:child")

    fleet.functions.append(durable("child")(child))
    with bound(request_id="request-1"):
        run_id = await fleet.start(parent, name="parent")
    await fleet.until(run_id, RunStatus.SUCCEEDED)
    runs = [await fleet.run(key.split("run:")[1]) async for key in client.scan_iter("*:run:*") if key.count(":") == 3]
    assert {run.runnable_id for run in runs} == {"parent", "child"}
    assert {run.correlation.request_id for run in runs} == {"request-1"}


def test_the_names_are_those_of_the_conventions() -> None:
    known = {name for name in vars(gen_ai_attributes).values() if isinstance(name, str)}
    response = ModelResponse("Hi.", tool_calls=[ToolCall("c", "bash", "{}")])
    used = {
        *genai.agent_attributes("coder", "thread", "m"),
        *genai.request_attributes("openai/m", REQUEST, contents=True),
        *genai.response_attributes(response, 0.5, contents=True),
        *genai.tool_attributes("bash", "c", "{}", contents=True),
        *genai.result_attributes("x", contents=True),
    }
    assert used <= known
    assert len(used) > len(fields(Usage))


def test_contents_are_left_out_unless_they_are_wanted() -> None:
    response = ModelResponse("A secret.", tool_calls=[ToolCall("c", "bash", '{"secret": 1}')])
    request = ModelRequest([{"role": "user", "content": "A secret."}])
    for contents in (False, True):
        attributes = [
            genai.request_attributes("m", request, contents=contents),
            genai.response_attributes(response, None, contents=contents),
            genai.tool_attributes("bash", "c", "secret", contents=contents),
            genai.result_attributes("secret", contents=contents),
        ]
        assert all("secret" in str(each) for each in attributes) is contents
        assert any("secret" in str(each) for each in attributes) is contents
