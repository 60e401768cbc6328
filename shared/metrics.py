"""What the metrics of all processes have in common. Their names: `metrics.py` in each package.

Labels have few values, all of our own making: no ids, nothing that a caller can make up.
"""

import hmac
import os
from collections.abc import Collection
from pathlib import Path

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from pydantic import SecretStr

CONTENT_TYPE = CONTENT_TYPE_LATEST
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus-client's own: names the folder in which processes that share a port keep their values together. It must
be in the environment before prometheus-client is imported."""
OTHER = "other"

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of a histogram's buckets for what should be over at once,"""
LONG_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""and for what models, tools and runs do."""


def new_registry() -> CollectorRegistry:
    """For the metrics of a process. Without the series by which prometheus-client tells when each one began."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    return CollectorRegistry()


def label(value: str, known: Collection[str]) -> str:
    """The value, if it is one of the known ones."""
    return value if value in known else OTHER


def exposition(registry: CollectorRegistry) -> bytes:
    """The metrics in Prometheus' text format: this process's, or all those of the processes that share a folder."""
    if folder := os.environ.get(SHARED_FOLDER):
        _forget_the_dead(Path(folder))
        registry = CollectorRegistry()
        MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def may_read(token: SecretStr, authorization: str) -> bool:
    """Whether a request with that Authorization header may read the metrics."""
    scheme, _, given = authorization.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.get_secret_value().encode())


def _forget_the_dead(folder: Path) -> None:
    """What processes that are no more have open counts no longer; what they have counted does."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
