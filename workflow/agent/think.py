"""One turn of the model, as a durable step: its text streams out, its finished answer is committed."""

import hashlib
from dataclasses import asdict, replace

import orjson

from shared.ids import thread_of
from shared.types import JSON, EventType
from workflow.agent.ask import Asker
from workflow.agent.budget import RunBudget
from workflow.agent.context import Window
from workflow.agent.conversation import Conversation
from workflow.engine.coalesce import Coalescer
from workflow.engine.journal import StepSpec
from workflow.engine.scope import Outcome, StepScope
from workflow.llm.pool import Try
from workflow.llm.types import ModelRequest, ModelResponse, TextDelta, ThinkingDelta, ToolCall, Usage


class Thinker:
    """Asks the run's model what to do next. `request` is made of all that stays the same from turn to turn."""

    def __init__(
        self, asker: Asker, budget: RunBudget, window: Window, *, system: JSON, request: ModelRequest, coalesce_ms: int
    ) -> None:
        self._asker = asker
        self._budget = budget
        self._window = window
        self._system = system
        self._request = request
        self._interval_seconds = coalesce_ms / 1000

    async def think(self, turn: int, conversation: Conversation) -> ModelResponse:
        """While no model may be asked, the run waits without a worker. Raises ModelError, AppError BUDGET_EXHAUSTED."""

        async def body(scope: StepScope) -> Outcome:
            response, rest = await self._stream(scope, conversation)
            return Outcome(
                asdict(response),
                messages=[response.as_message()],
                events=[*rest, (EventType.AGENT_RESPONSE, asdict(response))],
                run={"usage": orjson.dumps(self._budget.usage_with(response.usage))},
            )

        seen = hashlib.sha256(orjson.dumps(conversation.last)).hexdigest()[:16]
        spec = StepSpec(llm_step(turn), "llm", "llm", {"messages": conversation.count, "last": seen})
        response = _from_json(await self._asker.perform(spec, body))
        self._budget.count(response.usage)
        self._window.learn(response.usage.input_tokens, conversation.tokens)
        return response

    async def _stream(
        self, scope: StepScope, conversation: Conversation
    ) -> tuple[ModelResponse, list[tuple[str, JSON]]]:
        """The answer, and the events of its text that were not sent yet."""
        messages = [self._system, *conversation.sent()]
        request = replace(self._request, messages=messages, cache_key=thread_of(scope.run_id))
        input_tokens = self._window.used(conversation.tokens)

        async with Coalescer(scope.emit, _delta_event, self._interval_seconds) as stream:

            async def on_delta(delta: TextDelta | ThinkingDelta) -> None:
                stream.add("agent.delta" if isinstance(delta, TextDelta) else "agent.thinking", delta.text)

            async def on_retry(again: Try) -> None:
                await stream.flush()
                await scope.emit([(EventType.AGENT_REQUEST, again.as_json())])

            response = await self._asker.complete(
                scope, request, input_tokens=input_tokens, on_delta=on_delta, on_retry=on_retry
            )
            return _with_unique_ids(response, conversation), await stream.rest()


def llm_step(turn: int) -> str:
    """The key of a turn's step."""
    return f"llm:{turn}"


def _delta_event(label: str, text: str) -> tuple[str, JSON]:
    return label, {"text": text}


def _with_unique_ids(response: ModelResponse, conversation: Conversation) -> ModelResponse:
    """Some providers number calls from zero in every turn; a step's key must name one call of the run."""
    used: set[str] = set()
    calls = []
    for place, call in enumerate(response.tool_calls):
        known = not call.id or call.id in used or conversation.knows_call(call.id)
        unique = ToolCall(f"call_{conversation.count}_{place}", call.name, call.arguments) if known else call
        used.add(unique.id)
        calls.append(unique)
    return replace(response, tool_calls=calls)


def _from_json(recorded: JSON) -> ModelResponse:
    calls = [ToolCall(**call) for call in recorded["tool_calls"]]
    return ModelResponse(**{**recorded, "tool_calls": calls, "usage": Usage(**recorded["usage"])})
