"""A model that says what it is told to, turn by turn: for tests of all that calls models."""

import re
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass

from workflow.llm.types import NO_PRICE, ModelError, ModelRequest, ModelResponse, Price, TextDelta, ThinkingDelta

_WORDS = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True, slots=True)
class BrokenOff:
    """A turn whose stream fails with `error` after `text`."""

    error: ModelError
    text: str = ""


ScriptedTurn = ModelResponse | BrokenOff | ModelError


class ScriptedModel:
    """Answers one request after the other from `script`; `requests` holds what it was asked.

    A request beyond the script is an AssertionError that shows it: the caller does what its test did not expect.
    """

    def __init__(
        self,
        script: Iterable[ScriptedTurn],
        name: str = "scripted",
        context_tokens: int = 128_000,
        price: Price | None = NO_PRICE,
        deployment: str | None = None,
    ) -> None:
        self.requests: list[ModelRequest] = []
        self._script = list(script)
        self._name = name
        self._context_tokens = context_tokens
        self._price = price
        self._deployment = deployment

    @property
    def name(self) -> str:
        return self._name

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    @property
    def price(self) -> Price | None:
        return self._price

    @property
    def deployment(self) -> str | None:
        return self._deployment

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ThinkingDelta | ModelResponse, None]:
        """See `Model.stream`."""
        self.requests.append(request)
        if not self._script:
            raise AssertionError(f"request {len(self.requests)} is beyond the script: {request.messages[-1]}")
        turn = self._script.pop(0)
        if isinstance(turn, ModelError):
            raise turn
        if isinstance(turn, BrokenOff):
            for piece in _WORDS.findall(turn.text):
                yield TextDelta(piece)
            raise turn.error
        async for item in replay(turn):
            yield item


async def replay(response: ModelResponse) -> AsyncGenerator[TextDelta | ThinkingDelta | ModelResponse, None]:
    """A finished turn as the stream that it could have come from, word by word."""
    for piece in _WORDS.findall(response.thinking):
        yield ThinkingDelta(piece)
    for piece in _WORDS.findall(response.content):
        yield TextDelta(piece)
    yield response
