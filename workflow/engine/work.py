"""A step's own code, called: what it raises becomes an error with a code, its time is limited."""

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from shared.errors import AppError, ErrorCode
from shared.tasks import TimeLimit
from workflow.engine.retry import NonRetryable, Retry, StepError, in_words
from workflow.engine.scope import StepScope

Fn = Callable[..., Awaitable[Any]]

log = logging.getLogger("trunkline.step")


async def attempted(fn: Fn, scope: StepScope, retry: Retry, timeout: float | None) -> Any:
    """`fn`'s result. Raises StepError for what it raises, AppError as it is."""
    try:
        async with TimeLimit(timeout) as clock:
            result = await (fn(scope) if _takes_scope(fn) else fn())
        orjson.dumps(result)  # what cannot be recorded fails here, in words
        return result
    except AppError:
        raise
    except TimeoutError as error:
        if not clock.expired():
            raise _failed(error, retryable=True) from error
        raise StepError(ErrorCode.STEP_TIMEOUT, f"The step took longer than its {timeout:g} s.") from error
    except Exception as error:  # a user's code may raise anything
        log.warning("step %s failed", scope.step_id, exc_info=True)
        raise _failed(error, retryable=not isinstance(error, (NonRetryable, *retry.non_retryable))) from error


def _takes_scope(fn: Fn) -> bool:
    """Parameters with a default do not count: `lambda item=item: work(item)` is how loops bind their names."""
    parameters = inspect.signature(fn).parameters.values()
    return any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _failed(error: Exception, *, retryable: bool) -> StepError:
    return StepError(ErrorCode.STEP_FAILED, in_words(error), retryable=retryable)
