"""What a person is told when a provider says no."""

from datetime import UTC, datetime

import pytest

from workflow.llm.provider_errors import reason_of, retry_after_of

BODY = '{"error": {"message": "it\'s épuisé"}}'.encode()
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("litellm.RateLimitError: RateLimitError: OpenAIException - slow down", "slow down"),
        ("litellm.Timeout: APITimeoutError - Request timed out.", "Request timed out."),
        ('litellm.APIError: AnthropicException - {"error": {"message": "bad x-api-key"}}', "bad x-api-key"),
        ('litellm.APIError: OllamaException - {"error": "model not found"}', "model not found"),
        ("litellm.BadRequestError: GroqException - {not JSON", "{not JSON"),
        (
            f"litellm.InternalServerError: AnthropicError - {BODY!r}. Handle with `litellm.InternalServerError`.",
            "it's épuisé",
        ),
        ("b'not JSON'", "b'not JSON'"),
        ("Connection reset: by peer", "Connection reset: by peer"),
        ("", "RuntimeError"),
    ],
)
def test_the_reason_is_the_providers_own_words(raised: str, told: str) -> None:
    assert reason_of(RuntimeError(raised)) == told


def test_a_reason_is_not_longer_than_a_person_reads() -> None:
    assert len(reason_of(RuntimeError("x" * 10_000))) == 500


@pytest.mark.parametrize("padding", [0, 461])
def test_a_reason_tells_no_secret_not_even_the_beginning_of_one(padding: int) -> None:
    reason = reason_of(RuntimeError("x" * padding + " Incorrect API key provided: sk-abcdefgh12345678."))
    assert "abc" not in reason


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "20"}, 20),
        ({"retry-after": "-5"}, 0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
    ],
)
def test_retry_after_comes_in_three_spellings(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_of(headers, NOW) == seconds
