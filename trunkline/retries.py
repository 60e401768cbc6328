"""Which requests are sent again, when, and how often. Does no I/O."""

import random
from dataclasses import dataclass

import httpx

from trunkline.errors import ConnectionLost, refusal, shown

BUSY = (429, 503)
"""The request was not begun, or is safe to send again because of its Idempotency-Key."""
BROKEN = (502, 504)
"""Something in between answered: nobody knows what became of the request."""
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True)
class Retry:
    """Exponential backoff with jitter, at most `tries` times in all.

    A Retry-After is kept, but one of more than `max_pause_seconds` ends the tries: the error says when to come back.
    """

    tries: int = 4
    first_pause_seconds: float = 0.5
    max_pause_seconds: float = 30.0


def unreachable(error: httpx.RequestError) -> ConnectionLost:
    why = str(error) or type(error).__name__
    return ConnectionLost(f"{shown(error.request.url.join('/'))} cannot be reached ({why}).")


class Attempts:
    """Of one request. `repeatable`: sent twice, it does no more than once."""

    def __init__(self, retry: Retry, method: str, *, repeatable: bool) -> None:
        self._retry = retry
        self._method = method
        self._repeatable = repeatable
        self._failed = 0

    def cut(self, error: httpx.RequestError) -> float:
        """No answer: seconds until the next try. Raises ConnectionLost."""
        self._failed += 1
        if self._failed >= self._retry.tries or not (self._repeatable or isinstance(error, NOT_SENT)):
            raise unreachable(error) from error
        return self._pause()

    def broke_off(self, error: httpx.RequestError) -> float:
        """An answer that ended before its time, after some of it was used. Raises ConnectionLost."""
        self._failed = self._retry.tries
        return self.cut(error)

    def refused(self, response: httpx.Response) -> float:
        """An answer that is no success: seconds until the next try. Raises APIError."""
        self._failed += 1
        error = refusal(response)
        again = response.status_code in BUSY or (response.status_code in BROKEN and self._repeatable)
        pause = max(self._pause(), error.retry_after or 0.0)
        if not again or self._failed >= self._retry.tries or pause > self._retry.max_pause_seconds:
            raise error
        return pause

    def has_done(self, response: httpx.Response) -> bool:
        """Success; or a deletion that an earlier try, whose answer was lost, has made."""
        gone = self._method == "DELETE" and self._failed > 0 and response.status_code == httpx.codes.NOT_FOUND
        return response.is_success or gone

    def _pause(self) -> float:
        longest = min(self._retry.first_pause_seconds * 2.0 ** (self._failed - 1), self._retry.max_pause_seconds)
        return longest * random.uniform(0.5, 1)  # noqa: S311 - jitter, not a secret
