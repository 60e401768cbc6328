"""The seam between the agent loop and a language model: one streaming call, in OpenAI's chat shape."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

from shared.errors import AppError, ErrorCode
from shared.types import JSON


@dataclass(frozen=True, slots=True)
class ToolCall:
    """`arguments` is the model's JSON text as it came: the tool registry parses and judges it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `cost` is in USD, None where no price is known.

    `input_tokens` include `cached_tokens`, read from the provider's cache, and `cache_write_tokens`, written to it.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: float | None = None
    cache_write_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """A sum's cost is None as soon as one part's is: part of a bill is not the bill."""
        known = self.cost is not None and other.cost is not None
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            (self.cost or 0.0) + (other.cost or 0.0) if known else None,
            self.cache_write_tokens + other.cache_write_tokens,
        )

    def as_json(self) -> JSON:
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cached_tokens": self.cached_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "cost": self.cost,
        }


NO_USAGE = Usage(cost=0.0)


@dataclass(frozen=True, slots=True)
class Price:
    """USD for one input token and for one output token, each at the dearest that a call of the model can meet.

    So that `input_tokens * price.input + output_tokens * price.output` is never less than the bill: a token that is
    written to the provider's cache, or stands in a very long prompt, costs more than others; one read from the cache
    costs less.
    """

    input: float
    output: float


NO_PRICE = Price(0.0, 0.0)
"""Of models that run in this process: they cost nothing."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """`messages` and `tools` are in OpenAI's chat-completions shape. None: the model's own default.

    `cache_key` names the conversation: a provider that is told sends its requests to where its prompt is cached.
    """

    messages: list[JSON]
    tools: list[JSON] = field(default_factory=list)
    temperature: float | None = None
    max_output_tokens: int | None = None
    cache_key: str | None = None


@dataclass(frozen=True, slots=True)
class ModelResponse:
    """A finished turn. `finish_reason` is `stop`, `tool_calls`, `length` or `content_filter`."""

    content: str
    thinking: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    usage: Usage = Usage()
    finish_reason: str = "stop"

    def as_message(self) -> JSON:
        """The assistant message that this turn adds to the conversation."""
        message: JSON = {"role": "assistant", "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        return message


class ModelError(AppError):
    """A model call failed.

    `retryable`: the same request may succeed later, after `retry_after` seconds if given. `outage`: the provider
    failed (no connection, a timeout, a 5xx, a stream cut off). `elsewhere`: it is this model that cannot be had (a
    key refused, a name unknown, no quota left), and another may answer.
    """

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
        outage: bool = False,
        elsewhere: bool = False,
    ) -> None:
        super().__init__(code, detail, retry_after=retry_after)
        self.retryable = retryable
        self.outage = outage
        self.elsewhere = elsewhere


class ModelsUnavailable(AppError):
    """No model may be asked before `retry_at`: seconds since 1970 by Redis' clock, `retry_after` seconds from now."""

    def __init__(self, detail: str, retry_at: float, retry_after: float) -> None:
        super().__init__(ErrorCode.MODEL_UNAVAILABLE, detail, retry_after=retry_after)
        self.retry_at = retry_at


class Model(Protocol):
    """A language model, ready to be called.

    `context_tokens` is how much it can read in one request; `price` is None where no price list has the model;
    `deployment` is what can be down (shared/breaker.py), None for a model in this process.
    """

    @property
    def name(self) -> str: ...

    @property
    def context_tokens(self) -> int: ...

    @property
    def price(self) -> Price | None: ...

    @property
    def deployment(self) -> str | None: ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ThinkingDelta | ModelResponse, None]:
        """Deltas as they come, then the ModelResponse as the last item. Raises ModelError.

        Closing the generator early (`aclose`) aborts the call at the provider.
        """
        ...


class ModelAround:
    """For models that do something around another's calls: it says of itself what the other says."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def context_tokens(self) -> int:
        return self._model.context_tokens

    @property
    def price(self) -> Price | None:
        return self._model.price

    @property
    def deployment(self) -> str | None:
        return self._model.deployment
