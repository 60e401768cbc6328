"""When a call goes on with another model, and what it means where none of them answers.

- The provider fails, limits its rate or is left alone: the next model.
- This model cannot be had at all (its key is refused, nobody knows it, its account is empty): the next model, too.
  The log says so; nothing else would, for as long as the fallback answers.
- The request itself is refused (malformed, too long): no other model, for the first one knows best. What only a
  fallback refuses, the one after it may take.
"""

from collections.abc import Sequence

from workflow.llm.breaker.breaker import HeldBack
from workflow.llm.types import ModelError, ModelsUnavailable

Failure = ModelError | HeldBack


def goes_on(failure: Failure, *, first: bool) -> bool:
    """Whether the next model is asked. `first`: the failure is that of the model that the run asked for."""
    return not first or isinstance(failure, HeldBack) or failure.retryable or failure.elsewhere


def verdict(failures: Sequence[Failure]) -> ModelError | ModelsUnavailable:
    """What to raise after each model's failure, in the order asked: one that is left alone will be back."""
    held = [failure for failure in failures if isinstance(failure, HeldBack)]
    if held:
        soonest = min(held, key=lambda failure: failure.retry_at)
        reasons = " ".join(str(failure) for failure in failures)
        return ModelsUnavailable(f"No model can be asked now. {reasons}", soonest.retry_at, soonest.retry_after)
    return next(failure for failure in failures if isinstance(failure, ModelError))
