"""What LiteLLM's price list says of a model: an entry of `litellm.model_cost`, read without LiteLLM."""

import re
from collections.abc import Mapping
from typing import Any

from workflow.llm.types import Price

# What our calls can be billed at. Not the rest of the list's fields: batches, priority, flex, an hour's cache, audio.
_LONG_PROMPT = r"(?:_above_(\d+)k_tokens)?"
_INPUT = re.compile(rf"(?:input_cost_per_token|cache_creation_input_token_cost){_LONG_PROMPT}")
_OUTPUT = re.compile(rf"output_cost_per_(?:reasoning_)?token{_LONG_PROMPT}")


def known_context(entry: Mapping[str, Any]) -> int | None:
    """Tokens that the model can read, if the list says."""
    tokens = entry.get("max_input_tokens")
    return tokens if isinstance(tokens, int) else None


def price_of(entry: Mapping[str, Any], context_tokens: int) -> Price | None:
    """The dearest that a call with so large a context can meet; None where the list has no price of it."""
    if entry.get("input_cost_per_token") is None or entry.get("output_cost_per_token") is None:
        return None
    return Price(_dearest(entry, _INPUT, context_tokens), _dearest(entry, _OUTPUT, context_tokens))


def _dearest(entry: Mapping[str, Any], field: re.Pattern[str], context_tokens: int) -> float:
    matches = ((field.fullmatch(name), cost) for name, cost in entry.items() if cost is not None)
    return max(float(cost) for match, cost in matches if match and int(match[1] or 0) * 1000 < context_tokens)
