"""Calls of the run's model, as durable steps, each paid for from the run's budget."""

import itertools
from datetime import UTC, datetime
from typing import Any

from shared.types import EventType
from workflow.agent.budget import RunBudget
from workflow.agent.context import answer_tokens
from workflow.engine.journal import StepSpec
from workflow.engine.scope import Body, Outcome, Postponed, StepScope
from workflow.engine.step import Step
from workflow.llm.pool import OnDelta, OnRetry
from workflow.llm.response_cache import CachedModel
from workflow.llm.types import Model, ModelRequest, ModelResponse, ModelsUnavailable
from workflow.runtime import Runtime


class Asker:
    """Of one attempt."""

    def __init__(self, step: Step, model: Model, runtime: Runtime, budget: RunBudget) -> None:
        self._step = step
        self._model = model
        self._runtime = runtime
        self._budget = budget

    async def perform(self, spec: StepSpec, body: Body, **announced: str) -> Any:
        """The step's result. While no model may be asked, the run waits without a worker. Raises AppError."""

        async def postponing(scope: StepScope) -> Outcome:
            try:
                return await body(scope)
            except ModelsUnavailable as away:
                raise Postponed(datetime.fromtimestamp(away.retry_at, UTC)) from away

        started = [(EventType.AGENT_REQUEST, {"model": self._model.name, "try": 1, **announced})]
        until = datetime.now(UTC)
        for holds in itertools.count(1):
            key = f"{spec.key}:held:{holds}"
            if self._step.journal.known(key) is None:
                try:
                    return await self._step.perform(spec, postponing, started=started)
                except Postponed as held:
                    until = held.until
            await self._step.sleep_until(until, key=key)
        raise AssertionError("unreachable: itertools.count does not end")

    async def complete(
        self, scope: StepScope, request: ModelRequest, *, input_tokens: int, on_delta: OnDelta, on_retry: OnRetry
    ) -> ModelResponse:
        """`input_tokens`: our estimate of the request. Raises ModelError, ModelsUnavailable, AppError, Fenced."""

        def paid(model: Model) -> Model:
            output_tokens = answer_tokens(model, self._runtime.settings)
            paid = self._budget.paid(model, scope.step_id, input_tokens=input_tokens, output_tokens=output_tokens)
            cache = self._runtime.responses
            return paid if cache is None else CachedModel(paid, cache, self._step.run.workspace)

        return await self._runtime.pool(self._model, paid).complete(request, on_delta, on_retry)
