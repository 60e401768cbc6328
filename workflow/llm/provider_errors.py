"""Says in plain words why a provider refused or broke off a call, and whether trying again can help."""

import ast
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from shared.errors import ErrorCode
from shared.secrets import mask_secrets
from workflow.llm.types import ModelError

# "litellm.RateLimitError: RateLimitError: OpenAIException - slow down" -> "slow down"
_WRAPPING = re.compile(r"^(?:[\w.]+(?:Error|Timeout): )*(?:\w+(?:Exception|Error) - )?")
# A body as LiteLLM shows Anthropic's: b'{"type": "error", "error": {"message": "slow down"}}'
_BYTES = re.compile(r"""\bb(?:'.*'|".*")""", re.DOTALL)
_CONTEXT = re.compile(
    r"context (?:length|window|size|limit)|prompt is too long|too many (?:input )?tokens", re.IGNORECASE
)
_OUT_OF_QUOTA = re.compile(r"insufficient_quota|exceeded your current quota|credit balance|billing", re.IGNORECASE)
_NO_KEY = re.compile(r"missing credentials|api_key client option must be set|missing .{0,20}api.?key", re.IGNORECASE)
_REASON_CHARS = 500


def describe(error: Exception, model: str, how_to_set_key: str) -> ModelError:
    """The ModelError for an exception that LiteLLM raised. `how_to_set_key`: "Set X." for this model's provider."""
    cause = getattr(error, "original_exception", None) or error
    status = getattr(cause, "status_code", None) or 500
    reason = reason_of(cause)
    retry_after = retry_after_of(_headers(cause), datetime.now(UTC))
    if status in (401, 403) or _NO_KEY.search(reason):  # without a key LiteLLM asks nobody, and calls it a 500
        detail = f"{model}: the provider wants another key ({reason}). {how_to_set_key}"
        return ModelError(ErrorCode.MODEL_AUTH, detail, elsewhere=True)
    if type(cause).__name__ == "ContextWindowExceededError" or (status in (400, 413) and _CONTEXT.search(reason)):
        return _context_exceeded(model, reason)
    if status in (402, 429):
        return _rate_limited(model, reason, retry_after, out_of_quota=status == 402)
    if status >= 500 or status in (408, 409):
        detail = f"{model}: the provider did not answer as it should ({reason})."
        return ModelError(
            ErrorCode.MODEL_UNAVAILABLE, detail, retryable=True, retry_after=retry_after, outage=_is_outage(error)
        )
    detail = f"{model}: the provider refused the request ({reason})."
    return ModelError(ErrorCode.MODEL_ERROR, detail, elsewhere=status == 404)


def cut_off(model: str) -> ModelError:
    """The answer ended without a finish reason."""
    detail = f"{model}: the answer broke off before its end (no finish reason came)."
    return ModelError(ErrorCode.MODEL_UNAVAILABLE, detail, retryable=True, outage=True)


def reason_of(error: Exception) -> str:
    """The provider's own words, without LiteLLM's wrapping and without secrets."""
    text = _WRAPPING.sub("", str(getattr(error, "message", None) or error)).strip()
    with suppress(ValueError, SyntaxError):  # not JSON: as it is
        body = ast.literal_eval(found[0]) if (found := _BYTES.search(text)) else text
        text = _message_in(json.loads(body)) or text
    return mask_secrets(text)[:_REASON_CHARS] or type(error).__name__


def retry_after_of(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait, from `retry-after-ms`, or `Retry-After` as seconds or as an HTTP date."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if value is None or (seconds := _number(value)) is not None:
        return seconds if value is not None else None
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (ValueError, TypeError):
        return None


def _context_exceeded(model: str, reason: str) -> ModelError:
    return ModelError(
        ErrorCode.CONTEXT_EXCEEDED,
        f"{model}: the conversation is longer than the model can read ({reason}). "
        "Begin a new thread, give it less text, or choose a model with a larger context.",
    )


def _is_outage(error: BaseException) -> bool:
    """Whether the provider failed, judged by what came over the wire: LiteLLM calls bugs of its own a 500, too."""
    for cause in _causes(error):
        if isinstance(cause, httpx.HTTPStatusError):
            return cause.response.status_code >= 500
        if isinstance(cause, httpx.TransportError | ConnectionError | TimeoutError):
            return True
    return type(error).__name__ == "MidStreamFallbackError"


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what led to it."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = getattr(cause, "original_exception", None) or cause.__cause__ or cause.__context__
    return chain


def _rate_limited(model: str, reason: str, retry_after: float | None, *, out_of_quota: bool) -> ModelError:
    if out_of_quota or _OUT_OF_QUOTA.search(reason):
        detail = f"{model}: the account has no quota left ({reason}). Add credit, or choose another model."
        return ModelError(ErrorCode.MODEL_RATE_LIMITED, detail, elsewhere=True)
    detail = f"{model}: the provider's rate limit is reached ({reason})."
    if retry_after is not None:
        detail += f" It asks to wait {retry_after:g} s."
    return ModelError(ErrorCode.MODEL_RATE_LIMITED, detail, retryable=True, retry_after=retry_after)


def _headers(error: Exception) -> Mapping[str, str]:
    # LiteLLM gives its own exceptions an empty response and keeps the provider's headers here.
    headers = getattr(error, "litellm_response_headers", None) or {}
    return {str(name).lower(): str(value) for name, value in headers.items()}


def _message_in(body: Any) -> str | None:
    """The text in `{"error": {"message": ...}}`, `{"message": ...}` or `{"error": "..."}`."""
    if isinstance(body, dict):
        found = body.get("error", body.get("message"))
        return _message_in(found) if isinstance(found, dict) else found if isinstance(found, str) else None
    return None


def _number(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text is not None else None
    except ValueError:
        return None
