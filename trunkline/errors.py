"""What can go wrong between a client and Trunkline."""

from typing import Any

import httpx


class TrunklineError(Exception):
    """Every error of this package. Its text says what happened and what to do."""


class NotFoundError(TrunklineError):
    """No running Trunkline, or no key for it, could be found on this machine."""


class ConnectionLostError(TrunklineError):
    """The server could not be reached for longer than the caller's patience. Nothing is lost: resume at `last_id`."""

    def __init__(self, detail: str, last_id: str | None = None) -> None:
        super().__init__(detail)
        self.last_id = last_id


class APIError(TrunklineError):
    """The server refused a request: its problem document, as an exception."""

    def __init__(self, status: int, code: str, detail: str, errors: list[dict[str, Any]] | None = None) -> None:
        places = [f"{error.get('place', '')}: {error.get('detail', '')}" for error in errors or []]
        super().__init__("\n  ".join([detail, *(place for place in places if place not in detail)]))
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors or []

    @classmethod
    def of(cls, response: httpx.Response) -> "APIError":
        """From a response whose body has been read. What is not a problem document came from something in between."""
        try:
            problem = response.json()
        except ValueError:
            problem = None
        if not isinstance(problem, dict) or "detail" not in problem:
            text = f"{shown(response.request.url)} answered {response.status_code} {response.reason_phrase}"
            return cls(
                response.status_code, "unexpected_answer", f"{text}, which is not Trunkline's way. Is the URL right?"
            )
        return cls(response.status_code, problem.get("code", "unknown"), problem["detail"], problem.get("errors"))


def shown(url: httpx.URL) -> str:
    """An address as it may be printed: without the user and the password that may stand in it."""
    return str(url.copy_with(userinfo=b"")).rstrip("/")
