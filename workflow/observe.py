"""What a worker tells of its work as it goes: metrics (workflow/metrics.py) and, where wanted, traces.

Each call here is one line where the work is done, and costs some microseconds; nothing here waits or raises.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from shared.errors import AppError
from shared.metrics import OTHER, label
from shared.threads.attempt import Attempt
from shared.threads.types import Run
from shared.tracing import Attributes, NoTracing, Tracing
from shared.types import Runnable, RunStatus, StepStatus
from workflow import genai
from workflow.llm.types import ModelRequest, ModelResponse
from workflow.metrics import RuntimeMetrics
from workflow.tool.base import OutcomeUnknown, ToolResult

STOPPED = "stopped"
"""The outcome of a call that its run's end, or its worker's, broke off."""
MAX_MODELS = 50
"""Names of models among the labels."""


class ModelCall:
    """One try of one model."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.first_seconds: float | None = None
        self.response: ModelResponse | None = None

    def delta(self) -> None:
        """A piece of the answer has come."""
        if self.first_seconds is None:
            self.first_seconds = self.seconds

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began


class ToolRun:
    """One call of one tool. `result` None: it turned out that it had never begun."""

    def __init__(self) -> None:
        self.result: ToolResult | None = None


@dataclass(frozen=True)
class Observer:
    """`tools`, `models`: names that may be labels, beside those of models that have answered."""

    metrics: RuntimeMetrics = field(default_factory=RuntimeMetrics)
    tracing: Tracing = field(default_factory=NoTracing)
    tools: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)

    @contextmanager
    def attempt(self, attempt: Attempt) -> Iterator[None]:
        run, metrics = attempt.run, self.metrics
        kind = run.runnable_type
        metrics.attempts.labels(kind, "first" if run.epoch == 1 else "further").inc()
        if run.epoch == 1 and run.started_at is not None:
            metrics.queue_wait.labels(kind).observe((run.started_at - run.created_at).total_seconds())
        with metrics.active.track_inprogress(), self._attempt_span(run):
            yield

    def ended(self, attempt: Attempt, status: RunStatus) -> None:
        """By this attempt."""
        kind = attempt.run.runnable_type
        self.metrics.runs.labels(kind, status).inc()
        self.metrics.run_seconds.labels(kind, status).observe(attempt.held_seconds)
        self.tracing.annotate({"trunkline.run.status": status})
        if status is RunStatus.FAILED:
            self.tracing.failed("run_failed")

    def gave_up(self) -> None:
        """A run has failed without an attempt: too many had come to nothing. Its kind was not read."""
        self.metrics.runs.labels(OTHER, RunStatus.FAILED).inc()

    def step(self, step_id: str, key: str, kind: str) -> AbstractContextManager[None]:
        attributes = {"trunkline.step.id": step_id, "trunkline.step.key": key, "trunkline.step.kind": kind}
        return self.tracing.span(f"step {kind}", "internal", attributes)

    def step_ended(self, kind: str, status: StepStatus) -> None:
        self.metrics.steps.labels(kind, status).inc()

    @contextmanager
    def model_call(self, model: str, request: ModelRequest) -> Iterator[ModelCall]:
        contents = self.tracing.contents
        attributes = genai.request_attributes(model, request, contents=contents)
        name = f"{genai.CHAT} {attributes['gen_ai.request.model']}"
        call, outcome = ModelCall(), STOPPED
        with self.tracing.span(name, "client", attributes):
            try:
                yield call
                outcome = "ok"
                if call.response:
                    self._answered(model, call, call.response)
            except AppError as error:
                outcome = error.code
                raise
            finally:
                self.metrics.model_calls.labels(label(model, self.models), outcome).inc()

    @contextmanager
    def tool_call(self, name: str, call_id: str, arguments: str) -> Iterator[ToolRun]:
        contents, tool = self.tracing.contents, label(name, self.tools)
        attributes = genai.tool_attributes(name, call_id, arguments, contents=contents)
        run, outcome, began = ToolRun(), STOPPED, time.perf_counter()
        with self.tracing.span(f"{genai.TOOL} {name}", "internal", attributes):
            try:
                yield run
                outcome = ""
                if run.result:
                    outcome = "ok" if run.result.ok else "error"
                    self.tracing.annotate(genai.result_attributes(run.result.content, contents=contents))
                    if not run.result.ok:
                        self.tracing.failed(run.result.error_code or "error")
            except OutcomeUnknown:
                outcome = "unknown"
                raise
            except Exception:
                outcome = "error"
                raise
            finally:
                if outcome:
                    self.metrics.tool_calls.labels(tool, outcome).inc()
                    self.metrics.tool_seconds.labels(tool).observe(time.perf_counter() - began)

    def held_back(self, model: str, until: float) -> None:
        """By its circuit breaker. `until`: seconds since 1970."""
        self.metrics.breaker_until.labels(label(model, self.models)).set(until)

    def _answered(self, model: str, call: ModelCall, response: ModelResponse) -> None:
        # Anybody may ask for a model of any name; only one that is there answers.
        if len(self.models) < MAX_MODELS:
            self.models.add(model)
        metrics, name, usage = self.metrics, label(model, self.models), response.usage
        metrics.model_seconds.labels(name).observe(call.seconds)
        if call.first_seconds is not None:
            metrics.model_first_seconds.labels(name).observe(call.first_seconds)
        metrics.tokens.labels(name, "input").inc(usage.input_tokens)
        metrics.tokens.labels(name, "output").inc(usage.output_tokens)
        metrics.cost.labels(name).inc(usage.cost or 0)
        metrics.breaker_until.labels(name).set(0)
        contents = self.tracing.contents
        self.tracing.annotate(genai.response_attributes(response, call.first_seconds, contents=contents))

    def _attempt_span(self, run: Run) -> AbstractContextManager[None]:
        attributes: Attributes = {
            "trunkline.run.id": run.id,
            "trunkline.run.kind": run.runnable_type,
            "trunkline.attempt": run.epoch,
            "trunkline.request_id": run.correlation.request_id,
        }
        name = f"run {run.runnable_type}"
        if run.runnable_type is Runnable.AGENT:
            attributes = {**attributes, **genai.agent_attributes(run.runnable_id, run.thread_id, run.model)}
            name = f"{genai.AGENT} {run.runnable_id}" if run.runnable_id else genai.AGENT
        elif run.runnable_id:
            name = f"{name} {run.runnable_id}"
        return self.tracing.span(name, "consumer", attributes, parent=run.correlation.traceparent)
