"""Models of every provider, through LiteLLM. Importing this module is cheap; `load_litellm` is not."""

import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from shared.breaker import deployment
from shared.errors import AppError, ErrorCode
from shared.types import JSON
from workflow.llm.assemble import Turn
from workflow.llm.price_list import known_context, price_of
from workflow.llm.prompt_cache import LEAST_TOKENS, marked
from workflow.llm.provider_errors import cut_off, describe
from workflow.llm.types import ModelRequest, ModelResponse, Price, TextDelta, ThinkingDelta, Usage

DEFAULT_CONTEXT_TOKENS = 128_000

# Read while LiteLLM is imported. Unset, it fetches its price list and a list of Anthropic headers from the net, and
# loads the `.env` of the working folder into the environment.
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_MODE": "PRODUCTION",
}


@dataclass(frozen=True)
class ModelOptions:
    """Where and how a model is called. Seconds: the longest silence, before the first byte or between two chunks."""

    name: str
    api_key: SecretStr | None = None
    base_url: str | None = None
    context_tokens: int | None = None
    timeout_seconds: float = 120
    how_to_set_key: str = "Set TRUNKLINE__LLM__API_KEY."


def load_litellm() -> Any:
    """The LiteLLM package, quiet. The first call costs some 2 s of CPU and 164 MB: workers only, before they serve."""
    os.environ.update(QUIET)
    import litellm  # noqa: PLC0415 -- QUIET must be in the environment first, and only workers can afford it

    litellm.suppress_debug_info = True
    return litellm


class LiteLLMModel:
    """One model, called through LiteLLM. Building one loads LiteLLM."""

    def __init__(self, options: ModelOptions) -> None:
        self._options = options
        self._litellm = load_litellm()
        self._called = self._resolve(options)
        self._provider = self._litellm.get_llm_provider(self._called)[1]
        # Not litellm.get_model_info: it asks a network address for some providers.
        prices = self._litellm.model_cost
        listed = prices.get(self._called) or prices.get(self._called.partition("/")[2]) or {}
        self.context_tokens: int = options.context_tokens or known_context(listed) or DEFAULT_CONTEXT_TOKENS
        self.price: Price | None = price_of(listed, self.context_tokens)
        self._least_cached = int(listed.get("prompt_cache_min_tokens") or LEAST_TOKENS)

    @property
    def name(self) -> str:
        return self._options.name

    @property
    def deployment(self) -> str:
        return deployment(self.name, self._options.base_url)

    async def warm_up(self) -> None:
        """Do the imports and table building, 1 s of CPU, that LiteLLM puts off until its first call. No network."""
        import openai.resources  # noqa: PLC0415, F401 -- as above

        chunks = await self._litellm.acompletion(
            model=self._called, messages=[{"role": "user", "content": "-"}], stream=True, mock_response="-"
        )
        async for _ in chunks:
            pass

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ThinkingDelta | ModelResponse, None]:
        """See `Model.stream`."""
        provider_error = self._litellm.exceptions.openai.OpenAIError  # the base of all that LiteLLM raises
        turn, usage = Turn(), None
        try:
            chunks = await self._litellm.acompletion(**self._arguments(request))
            try:
                async for chunk in chunks:
                    for delta in turn.add(chunk.choices[0]) if chunk.choices else ():
                        yield delta
                    if usage := getattr(chunk, "usage", None):
                        # The last chunk. Going on makes LiteLLM build the whole answer again for callbacks that
                        # nobody registered: 3.4 of the 8 ms of CPU that a call costs.
                        break
            finally:
                await chunks.aclose()
        except provider_error as error:
            raise describe(error, self.name, self._options.how_to_set_key) from error
        # LiteLLM makes a "stop" of its own up where none came.
        if chunks.received_finish_reason is None and chunks.intermittent_finish_reason is None:
            raise cut_off(self.name)
        yield turn.response(self._usage(usage))

    def _arguments(self, request: ModelRequest) -> JSON:
        messages, tools = request.messages, request.tools
        if self._provider == "anthropic":
            messages, tools = marked(messages, tools, self._least_cached)
        arguments = {
            "model": self._called,
            "messages": messages,
            "tools": tools or None,
            "prompt_cache_key": request.cache_key if self._takes_cache_key else None,
            "temperature": request.temperature,
            "max_tokens": request.max_output_tokens,
            "api_key": self._options.api_key.get_secret_value() if self._options.api_key else None,
            "api_base": self._options.base_url,
            "timeout": self._options.timeout_seconds,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_retries": 0,  # retries are ours (retry.py): they are told to the stream
            "num_retries": 0,
        }
        return {name: value for name, value in arguments.items() if value is not None}

    @property
    def _takes_cache_key(self) -> bool:
        """OpenAI itself does; of the servers that speak as it does, many refuse what they do not know."""
        return self._provider in ("openai", "azure") and self._options.base_url is None

    def _usage(self, reported: Any) -> Usage:
        """What the provider reported; where it reports nothing, LiteLLM has counted."""
        if reported is None:
            return Usage()
        details = getattr(reported, "prompt_tokens_details", None)
        return Usage(
            input_tokens=reported.prompt_tokens or 0,
            output_tokens=reported.completion_tokens or 0,
            cached_tokens=getattr(details, "cached_tokens", None) or 0,
            cost=self._cost(reported),
            cache_write_tokens=getattr(details, "cache_creation_tokens", None) or 0,
        )

    def _cost(self, reported: Any) -> float | None:
        """USD, by the provider's own bill or LiteLLM's price list; None for a model that neither knows."""
        if isinstance(billed := getattr(reported, "cost", None), int | float):
            return float(billed)
        try:
            return float(sum(self._litellm.cost_per_token(model=self._called, usage_object=reported)))
        except Exception:  # noqa: BLE001 -- LiteLLM raises a bare Exception for a model it has no price of
            return None

    def _resolve(self, options: ModelOptions) -> str:
        """The name as LiteLLM takes it. With a base URL, a name without a provider is an OpenAI-compatible model."""
        provider_list, name = self._litellm.provider_list, options.name
        if options.base_url and name.partition("/")[0] not in provider_list:
            return f"openai/{name}"
        try:
            self._litellm.get_llm_provider(name)
        except self._litellm.BadRequestError as error:
            raise AppError(
                ErrorCode.INVALID_CONFIG,
                f"The model name {name!r} names no provider. Write it as LiteLLM does (anthropic/NAME, openai/NAME, "
                "...), or set llm.base_url to the OpenAI-compatible server that has it.",
            ) from error
        return name


async def close_connections() -> None:
    """Close the connections that LiteLLM keeps open, at the end of the loop that made them."""
    await load_litellm().close_litellm_async_clients()
