"""Puts a streamed turn together from the chunks of a chat completion."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from workflow.llm.types import ModelResponse, TextDelta, ThinkingDelta, ToolCall, Usage


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    arguments: list[str]


@dataclass(slots=True)
class Turn:
    """`finish_reason` is None until the model gave one: a stream that ends without it was cut."""

    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    calls: list[_Call] = field(default_factory=list)
    finish_reason: str | None = None
    by_index: dict[int, _Call] = field(default_factory=dict)

    def add(self, choice: Any) -> Iterator[TextDelta | ThinkingDelta]:
        """Take one chunk's choice; yields what a person can read of it."""
        delta = choice.delta
        if thinking := getattr(delta, "reasoning_content", None):
            self.thinking.append(thinking)
            yield ThinkingDelta(thinking)
        if delta.content:
            self.text.append(delta.content)
            yield TextDelta(delta.content)
        for piece in delta.tool_calls or ():
            self._add_call(piece)
        if choice.finish_reason:
            self.finish_reason = choice.finish_reason

    def _add_call(self, piece: Any) -> None:
        # Some servers give every parallel call index 0 (or none); a new id always starts a new call.
        index = piece.index or 0
        call = self.by_index.get(index)
        if call is None or (piece.id and call.id and piece.id != call.id):
            call = self.by_index[index] = _Call(piece.id or "", "", [])
            self.calls.append(call)
        call.id = call.id or piece.id or ""
        call.name += piece.function.name or ""
        call.arguments.append(piece.function.arguments or "")

    def response(self, usage: Usage) -> ModelResponse:
        calls = [ToolCall(call.id, call.name, "".join(call.arguments)) for call in self.calls]
        return ModelResponse("".join(self.text), "".join(self.thinking), calls, usage, self.finish_reason or "stop")
