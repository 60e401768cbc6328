"""The runtime's metrics, all of them. What each means: docs/operations.md."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.metrics import LONG_SECONDS, new_registry


class RuntimeMetrics:
    """One of each a worker."""

    def __init__(self) -> None:
        registry = self.registry = new_registry()
        self.runs = Counter("trunkline_runs", "Runs that have ended.", ["kind", "status"], registry=registry)
        self.run_seconds = Histogram(
            "trunkline_run_duration_seconds",
            "How long workers had a run that has ended: without its waits.",
            ["kind", "status"],
            buckets=LONG_SECONDS,
            registry=registry,
        )
        self.queue_wait = Histogram(
            "trunkline_run_queue_wait_seconds",
            "From a run's submission to its first claim.",
            ["kind"],
            buckets=LONG_SECONDS,
            registry=registry,
        )
        self.active = Gauge("trunkline_runs_active", "Runs that the worker holds.", registry=registry)
        self.attempts = Counter(
            "trunkline_run_attempts", "Attempts that have begun.", ["kind", "nth"], registry=registry
        )
        self.steps = Counter("trunkline_steps", "Steps committed as finished.", ["kind", "status"], registry=registry)
        self.tool_calls = Counter("trunkline_tool_calls", "Calls of tools.", ["tool", "outcome"], registry=registry)
        self.tool_seconds = Histogram(
            "trunkline_tool_duration_seconds",
            "How long a tool's call took.",
            ["tool"],
            buckets=LONG_SECONDS,
            registry=registry,
        )
        self._add_models(registry)

    def _add_models(self, registry: CollectorRegistry) -> None:
        self.model_calls = Counter(
            "trunkline_llm_calls", "Calls of models, each try.", ["model", "outcome"], registry=registry
        )
        self.model_seconds = Histogram(
            "trunkline_llm_duration_seconds",
            "How long a model's answer took, whole.",
            ["model"],
            buckets=LONG_SECONDS,
            registry=registry,
        )
        self.model_first_seconds = Histogram(
            "trunkline_llm_ttft_seconds",
            "From a model's call to the first piece of its answer.",
            ["model"],
            buckets=LONG_SECONDS,
            registry=registry,
        )
        self.tokens = Counter("trunkline_llm_tokens", "Tokens of models.", ["model", "direction"], registry=registry)
        self.cost = Counter(
            "trunkline_llm_cost_usd", "What models cost, where their price is known.", ["model"], registry=registry
        )
        self.breaker_until = Gauge(
            "trunkline_llm_breaker_until_seconds",
            "When a model held back by its circuit breaker is asked again (Unix time); 0: it is not held back.",
            ["model"],
            registry=registry,
        )
