"""Prices that budgets may count on."""

import pytest

from workflow.llm.price_list import known_context, price_of
from workflow.llm.types import Price

PLAIN = {"input_cost_per_token": 1e-6, "output_cost_per_token": 4e-6, "input_cost_per_token_priority": 9e-6}
CACHED = {**PLAIN, "cache_creation_input_token_cost": 1.25e-6, "cache_creation_input_token_cost_above_1hr": 2e-6}
TIERED = {**PLAIN, "input_cost_per_token_above_200k_tokens": 2e-6, "output_cost_per_token_above_200k_tokens": 6e-6}


@pytest.mark.parametrize(
    ("entry", "context_tokens", "price"),
    [
        (PLAIN, 128_000, Price(1e-6, 4e-6)),
        (CACHED, 128_000, Price(1.25e-6, 4e-6)),
        (TIERED, 200_000, Price(1e-6, 4e-6)),
        (TIERED, 200_001, Price(2e-6, 6e-6)),
        ({**PLAIN, "output_cost_per_reasoning_token": 5e-6}, 128_000, Price(1e-6, 5e-6)),
        ({"input_cost_per_token": 0, "output_cost_per_token": 0}, 128_000, Price(0, 0)),
        ({"input_cost_per_token": 1e-6}, 128_000, None),
        ({"input_cost_per_token": None, "output_cost_per_token": 1e-6}, 128_000, None),
        ({}, 128_000, None),
    ],
    ids=["plain", "cache writes", "short of the tier", "in the tier", "thinking", "free", "half", "none", "unlisted"],
)
def test_a_price_is_the_dearest_that_a_call_can_meet(
    entry: dict[str, float | None], context_tokens: int, price: Price | None
) -> None:
    assert price_of(entry, context_tokens) == price


def test_a_context_is_a_number_or_unknown() -> None:
    assert known_context({"max_input_tokens": 8192}) == 8192
    assert known_context({"max_input_tokens": "see the model card"}) is None
