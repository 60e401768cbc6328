"""One turn of the model, as a durable step: its text streams out, its finished answer is committed."""

import hashlib
import itertools
from dataclasses import asdict
from datetime import UTC, datetime

import orjson

from shared.ids import thread_of
from shared.types import JSON, EventType
from workflow.agent.context import build_context
from workflow.engine.coalesce import Coalescer
from workflow.engine.journal import StepSpec
from workflow.engine.scope import Outcome, Postponed, StepScope
from workflow.engine.step import Step
from workflow.llm.pool import Try
from workflow.llm.types import (
    Model,
    ModelRequest,
    ModelResponse,
    ModelsUnavailable,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    Usage,
)
from workflow.runtime import Runtime
from workflow.tool.registry import Registry


class Thinker:
    """Asks one model with one set of tools. `context` is the thread's, for the model to know."""

    def __init__(
        self, step: Step, model: Model, tools: Registry, runtime: Runtime, *, parameters: JSON, context: JSON
    ) -> None:
        self._step = step
        self._model = model
        self._tools = tools
        self._runtime = runtime
        self._parameters = parameters
        self._context = context

    async def think(self, turn: int, messages: list[JSON], spent: Usage) -> ModelResponse:
        """While no model may be asked, the run waits without a worker. Raises ModelError, AppError CONTEXT_EXCEEDED."""

        async def body(scope: StepScope) -> Outcome:
            try:
                response, rest = await self._stream(scope, messages)
            except ModelsUnavailable as away:
                raise Postponed(datetime.fromtimestamp(away.retry_at, UTC)) from away
            usage = spent + response.usage
            return Outcome(
                _as_json(response),
                messages=[response.as_message()],
                events=[*rest, (EventType.AGENT_RESPONSE, _as_json(response))],
                run={"usage": orjson.dumps(usage.as_json())},
            )

        seen = hashlib.sha256(orjson.dumps(messages[-1])).hexdigest()[:16]
        spec = StepSpec(f"llm:{turn}", "llm", "llm", {"messages": len(messages), "last": seen})
        started = [(EventType.AGENT_REQUEST, {"model": self._model.name, "try": 1})]
        until = datetime.now(UTC)
        for holds in itertools.count(1):
            key = f"llm:{turn}:held:{holds}"
            if self._step.journal.known(key) is None:
                try:
                    return _from_json(await self._step.perform(spec, body, started=started))
                except Postponed as held:
                    until = held.until
            await self._step.sleep_until(until, key=key)
        raise AssertionError("unreachable: itertools.count does not end")

    async def _stream(self, scope: StepScope, messages: list[JSON]) -> tuple[ModelResponse, list[tuple[str, JSON]]]:
        """The answer, and the events of its text that were not sent yet."""
        settings = self._runtime.settings
        request = ModelRequest(
            messages=build_context(messages, self._model, settings, self._context),
            tools=self._tools.schemas(),
            temperature=self._parameters.get("temperature", settings.llm.temperature),
            max_output_tokens=settings.llm.max_output_tokens,
            cache_key=thread_of(scope.run_id),
        )

        async with Coalescer(scope.emit, _delta_event, settings.agent.coalesce_ms / 1000) as stream:

            async def on_delta(delta: TextDelta | ThinkingDelta) -> None:
                stream.add("agent.delta" if isinstance(delta, TextDelta) else "agent.thinking", delta.text)

            async def on_retry(again: Try) -> None:
                await stream.flush()
                await scope.emit([(EventType.AGENT_REQUEST, again.as_json())])

            response = await self._runtime.pool(self._model).complete(request, on_delta, on_retry)
            return _with_unique_ids(response, messages), await stream.rest()


def _delta_event(label: str, text: str) -> tuple[str, JSON]:
    return label, {"text": text}


def _with_unique_ids(response: ModelResponse, messages: list[JSON]) -> ModelResponse:
    """Some providers number calls from zero in every turn; a step's key must name one call of the run."""
    used = {call["id"] for message in messages for call in message.get("tool_calls") or ()}
    calls = []
    for place, call in enumerate(response.tool_calls):
        known = not call.id or call.id in used
        unique = ToolCall(f"call_{len(messages)}_{place}", call.name, call.arguments) if known else call
        used.add(unique.id)
        calls.append(unique)
    return ModelResponse(response.content, response.thinking, calls, response.usage, response.finish_reason)


def _as_json(response: ModelResponse) -> JSON:
    return asdict(response)


def _from_json(recorded: JSON) -> ModelResponse:
    calls = [ToolCall(**call) for call in recorded["tool_calls"]]
    return ModelResponse(**{**recorded, "tool_calls": calls, "usage": Usage(**recorded["usage"])})
