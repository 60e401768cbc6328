"""What can go wrong between a client and Trunkline: an exception for each kind, by the problem's stable `code`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx


class TrunklineError(Exception):
    """Every error of this package. Its text says what happened and what to do."""


class ServerNotFound(TrunklineError):
    """No running Trunkline, or no key for it, could be found on this machine."""


class ConnectionLost(TrunklineError):
    """The server could not be reached for longer than the caller's patience. Nothing is lost: resume at `last_id`."""

    def __init__(self, detail: str, last_id: str | None = None) -> None:
        super().__init__(detail)
        self.last_id = last_id


class RunFailed(TrunklineError):
    """A run ended otherwise than succeeded. `status` is failed or canceled, `code` the reason's (docs/client.md)."""

    def __init__(self, run_id: str, status: str, error: Mapping[str, Any] | None) -> None:
        error = error or {}
        super().__init__(f"Run {run_id} is {status}. {error.get('detail') or error.get('code') or ''}".strip())
        self.run_id = run_id
        self.status = status
        self.code = str(error.get("code") or status)


class APIError(TrunklineError):
    """The server refused a request: its problem document (RFC 9457), as an exception.

    `errors` lists the places of a wrong request, `request_id` finds a 500 in the server's log, `retry_after` is in
    seconds. Subclasses stand for codes; a code that this release does not know comes as APIError itself.
    """

    def __init__(self, problem: Mapping[str, Any], *, retry_after: float | None = None) -> None:
        self.problem = dict(problem)
        self.status = int(problem.get("status") or 0)
        self.code = str(problem.get("code") or "unknown")
        self.detail = str(problem.get("detail") or self.code)
        self.errors: list[dict[str, Any]] = list(problem.get("errors") or [])
        self.request_id: str | None = problem.get("request_id")
        self.retry_after = retry_after
        places = [f"{error.get('place', '')}: {error.get('detail', '')}" for error in self.errors]
        super().__init__("\n  ".join([self.detail, *(place for place in places if place not in self.detail)]))


class InvalidRequest(APIError):
    """invalid_request, unsupported, method_not_allowed: the request is wrong, and stays wrong."""


class Unauthorized(APIError):
    """unauthorized: no valid key."""


class Forbidden(APIError):
    """forbidden: the key may not do this."""


class NotFound(APIError):
    """not_found: it is not there, or not yours."""


class Conflict(APIError):
    """conflict: not possible in the present state; or the version given is not the present one."""


class IdempotencyConflict(Conflict):
    """idempotency_conflict: the key was used for another request."""


class PreconditionFailed(Conflict):
    """precondition_failed: the file is another one by now."""


class PayloadTooLarge(APIError):
    """payload_too_large, result_too_large."""


class RateLimited(APIError):
    """rate_limited: too many requests or open streams; `retry_after` says when to come back."""


class Unavailable(APIError):
    """unavailable: a part of the service is away. Nothing is lost."""


class UnexpectedAnswer(APIError):
    """Not Trunkline's words: something in between answered, or the address is another service's."""


_OF_CODE: dict[str, type[APIError]] = {
    "invalid_request": InvalidRequest,
    "unsupported": InvalidRequest,
    "method_not_allowed": InvalidRequest,
    "unauthorized": Unauthorized,
    "forbidden": Forbidden,
    "not_found": NotFound,
    "conflict": Conflict,
    "idempotency_conflict": IdempotencyConflict,
    "precondition_failed": PreconditionFailed,
    "payload_too_large": PayloadTooLarge,
    "result_too_large": PayloadTooLarge,
    "rate_limited": RateLimited,
    "unavailable": Unavailable,
}


def error_of(problem: Mapping[str, Any], *, retry_after: float | None = None) -> APIError:
    """The exception for a problem document."""
    return _OF_CODE.get(str(problem.get("code")), APIError)(problem, retry_after=retry_after)


def refusal(response: httpx.Response) -> APIError:
    """From an answer that is no success and whose body has been read."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "detail" not in problem:
        return unexpected(response)
    return error_of({"status": response.status_code, **problem}, retry_after=retry_after(response.headers))


def unexpected(response: httpx.Response) -> UnexpectedAnswer:
    told = f"{shown(response.request.url)} answered {response.status_code} {response.reason_phrase}".strip()
    detail = f"{told}, which is not Trunkline's way. Is the URL right?"
    problem = {"status": response.status_code, "code": "unexpected_answer", "detail": detail}
    return UnexpectedAnswer(problem, retry_after=retry_after(response.headers))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from a Retry-After header in either of its forms; None where there is none that can be read."""
    value = headers.get("retry-after", "")
    if value.isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (until.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def shown(url: httpx.URL) -> str:
    """An address as it may be printed: without the user, the password and the query, which may hold a ticket."""
    return str(url.copy_with(userinfo=b"", query=None)).rstrip("/")
