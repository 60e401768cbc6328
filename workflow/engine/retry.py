"""When a step that failed is tried again."""

from dataclasses import dataclass

from shared.errors import AppError, ErrorCode
from shared.secrets import mask_secrets

LONGEST_DETAIL = 10_000
"""Characters of an error's text."""
CLIPPED = " ... (clipped)"


class StepError(AppError):
    """What a step's own code raised, in words. `retryable`: another try may help."""

    def __init__(self, code: ErrorCode, detail: str, *, retryable: bool = True) -> None:
        super().__init__(code, detail)
        self.retryable = retryable


class NonRetryable(Exception):
    """For a step's code to raise where another try cannot help."""


@dataclass(frozen=True, slots=True)
class Retry:
    """At most `max_attempts` tries; before try n + 1 a pause of `backoff_seconds` * `factor`^(n-1).

    No pause is longer than `max_seconds`. After one of the `non_retryable` exceptions there is no other try, as after
    NonRetryable.
    """

    max_attempts: int = 3
    backoff_seconds: float = 1.0
    factor: float = 2.0
    max_seconds: float = 60.0
    non_retryable: tuple[type[Exception], ...] = ()

    def pause(self, tries: int, error: AppError) -> float | None:
        """Seconds to wait after so many failed tries; None where there is to be no other."""
        if tries >= self.max_attempts or not getattr(error, "retryable", False):
            return None
        return min(self.max_seconds, self.backoff_seconds * self.factor ** (tries - 1))


def in_words(raised: Exception | str) -> str:
    """An error's text as it is recorded and shown: without secrets, and of a bounded length."""
    text = mask_secrets(raised if isinstance(raised, str) else f"{type(raised).__name__}: {raised}")
    return text if len(text) <= LONGEST_DETAIL else text[: LONGEST_DETAIL - len(CLIPPED)] + CLIPPED


ONCE = Retry(max_attempts=1)
