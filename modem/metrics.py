"""The worker's metrics beside the runtime's (workflow/metrics.py). What each means: docs/operations.md."""

from prometheus_client import CollectorRegistry, Counter


class SweepMetrics:
    """One of each a worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.findings = Counter(
            "trunkline_sweeper_findings", "What the sweeper found to mend.", ["finding"], registry=registry
        )
