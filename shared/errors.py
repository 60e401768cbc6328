"""Every error a caller can meet has a stable code, given where it is raised. `gateway.errors` alone knows HTTP."""

from enum import StrEnum
from typing import NotRequired, TypedDict


class ErrorCode(StrEnum):
    # what a client did
    INVALID_REQUEST = "invalid_request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "conflict"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    PRECONDITION_FAILED = "precondition_failed"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    RATE_LIMITED = "rate_limited"
    UNSUPPORTED = "unsupported"
    NOT_IMPLEMENTED = "not_implemented"
    STREAM_TIMEOUT = "stream_timeout"
    # what the service met
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"
    INVALID_CONFIG = "invalid_config"
    # why a run failed
    MODEL_ERROR = "model_error"
    MODEL_AUTH = "model_auth"
    MODEL_RATE_LIMITED = "model_rate_limited"
    MODEL_UNAVAILABLE = "model_unavailable"
    CONTEXT_EXCEEDED = "context_exceeded"
    SANDBOX_UNAVAILABLE = "sandbox_unavailable"
    SANDBOX_LOST = "sandbox_lost"
    SANDBOX_FENCED = "sandbox_fenced"
    SANDBOX_ERROR = "sandbox_error"
    BUDGET_EXHAUSTED = "budget_exhausted"
    STEP_FAILED = "step_failed"
    STEP_TIMEOUT = "step_timeout"
    WAIT_TIMEOUT = "wait_timeout"
    RESULT_TOO_LARGE = "result_too_large"
    RESULT_LOST = "result_lost"
    RUN_CANCELED = "run_canceled"
    NO_PROGRESS = "no_progress"
    CALL_TOO_DEEP = "call_too_deep"
    REPLAY_MISMATCH = "replay_mismatch"
    RUN_CRASHED = "run_crashed"


class FieldError(TypedDict):
    """One thing wrong with a request, and where."""

    place: str
    detail: str
    value: NotRequired[str]


class AppError(Exception):
    """An error meant for a reader: `detail` says what happened and what to do about it.

    `retry_after` is in seconds, where trying again later can help.
    """

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        *,
        errors: list[FieldError] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = errors
        self.retry_after = retry_after
        self.step_key: str | None = None
        """Of the step of a run whose failure it is."""
