"""The worker's metrics beside the runtime's (workflow/metrics.py). What each means: docs/operations.md."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class ChoreMetrics:
    """One of each a worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.findings = Counter(
            "trunkline_sweeper_findings", "What the sweeper found to mend.", ["finding"], registry=registry
        )
        self.archive_done = Gauge(
            "trunkline_archive_done_timestamp_seconds",
            "When the archiver last had copied all that it found (Unix time); 0: not yet.",
            registry=registry,
        )
