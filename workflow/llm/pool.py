"""A model with all that stands by it: further tries, the circuit breaker, the models that take its place.

Each of these is a policy of its own (retry.py, breaker.py, fallback.py); this file only puts one around the other.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from shared.types import JSON
from workflow.llm.breaker.breaker import Breaker, HeldBack
from workflow.llm.fallback import Failure, goes_on, verdict
from workflow.llm.retry import RetryPolicy, retried
from workflow.llm.types import Model, ModelError, ModelRequest, ModelResponse, TextDelta, ThinkingDelta
from workflow.observe import Observer

log = logging.getLogger("trunkline.llm")


@dataclass(frozen=True, slots=True)
class Try:
    """A try that follows a failed one, of the same model or of another; the deltas given so far are void.

    `number` counts from 2 within a call, and `after_seconds` is the pause that comes first.
    """

    number: int
    model: str
    cause: str
    after_seconds: float = 0.0

    def as_json(self) -> JSON:
        pause = round(self.after_seconds, 3)
        return {"model": self.model, "try": self.number, "cause": self.cause, "after_seconds": pause}


OnDelta = Callable[[TextDelta | ThinkingDelta], Awaitable[None]]
OnRetry = Callable[[Try], Awaitable[None]]


class ModelPool:
    """The run's model, then its fallbacks in the order in which they are asked."""

    def __init__(
        self, models: Sequence[Model], breaker: Breaker, retry: RetryPolicy, observer: Observer | None = None
    ) -> None:
        self._models = models
        self._breaker = breaker
        self._retry = retry
        self._observer = observer or Observer()

    async def complete(self, request: ModelRequest, on_delta: OnDelta, on_retry: OnRetry) -> ModelResponse:
        """One finished turn. The caller has announced the first try, of the first model; `on_retry` does the others.

        Raises ModelError (the first model's, where all have failed), or ModelsUnavailable: each of them has failed,
        and at least one may be asked again at a known time. Nothing is to be kept of such a call: the same one, made
        at that time, finds that model ready, or held back anew.
        """
        call = _Call(self._models[0].name, request, on_delta, on_retry, self._observer)
        failures: list[Failure] = []
        for model in self._models:
            try:
                return await self._ask(model, call)
            except (ModelError, HeldBack) as failure:
                if isinstance(failure, HeldBack):
                    self._observer.held_back(model.name, failure.retry_at)
                if not goes_on(failure, first=not failures):
                    raise
                level = logging.INFO if isinstance(failure, HeldBack) else logging.WARNING
                log.log(level, "%s gives no answer: %s", model.name, failure)
                call.cause = str(failure)
                failures.append(failure)
        raise verdict(failures)

    async def _ask(self, model: Model, call: "_Call") -> ModelResponse:
        async def attempt() -> ModelResponse:
            return await self._breaker.guard(model.deployment, lambda: call.answer_of(model))

        async def again(error: ModelError, pause: float) -> None:
            await call.announce(model, error.detail, pause)

        return await retried(self._retry, attempt, again)


class _Call:
    """One request on its way through the pool; `cause`: why the last model gave no answer."""

    def __init__(
        self, announced: str, request: ModelRequest, on_delta: OnDelta, on_retry: OnRetry, observer: Observer
    ) -> None:
        self.cause = ""
        self._number = 1
        self._announced = announced
        self._request = request
        self._on_delta = on_delta
        self._on_retry = on_retry
        self._observer = observer

    async def announce(self, model: Model, cause: str, pause: float = 0.0) -> None:
        self._number += 1
        self._announced = model.name
        await self._on_retry(Try(self._number, model.name, cause, pause))

    async def answer_of(self, model: Model) -> ModelResponse:
        """Only here is it sure that another model is asked: one that is held back is not announced."""
        if self._announced != model.name:
            await self.announce(model, self.cause)
        with self._observer.model_call(model.name, self._request) as seen:
            async with aclosing(model.stream(self._request)) as items:
                async for item in items:
                    if isinstance(item, ModelResponse):
                        seen.response = item
                        return item
                    seen.delta()
                    await self._on_delta(item)
        raise AssertionError(f"{model.name}: a model's stream ends with a ModelResponse or raises ModelError")
