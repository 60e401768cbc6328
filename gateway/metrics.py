"""The gateway's metrics, all of them. What each means: docs/operations.md."""

from prometheus_client import Counter, Gauge, Histogram

from shared.metrics import SECONDS, new_registry

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE = "none"


class GatewayMetrics:
    """One of each a process."""

    def __init__(self) -> None:
        registry = self.registry = new_registry()
        self.requests = Counter(
            "trunkline_http_requests", "Answered HTTP requests.", ["method", "route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "trunkline_http_request_duration_seconds",
            "From a request's head to its answer's end, without streams.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.subscribers = Gauge(
            "trunkline_stream_subscribers", "Open event streams.", multiprocess_mode="livesum", registry=registry
        )
        self.stream_lag = Histogram(
            "trunkline_stream_lag_seconds",
            "From an event's time in Redis until the gateway has it for its subscribers.",
            buckets=SECONDS,
            registry=registry,
        )
        self.stream_pages = Counter(
            "trunkline_stream_pages", "Reads for subscribers that came late or fell behind.", registry=registry
        )
        self.audit_entries = Counter(
            "trunkline_audit_entries",
            "Entries of the audit log: written; left_out, of callers whom nobody knows; lost.",
            ["outcome"],
            registry=registry,
        )
        self.redis_up = Gauge(
            "trunkline_redis_up", "Whether Redis answers (1).", multiprocess_mode="mostrecent", registry=registry
        )
        self.database_up = Gauge(
            "trunkline_database_up",
            "Whether the database answers (1).",
            multiprocess_mode="mostrecent",
            registry=registry,
        )
        self.queue_depth = Gauge(
            "trunkline_queue_depth",
            "Messages about runs that no worker has taken yet.",
            ["priority"],
            multiprocess_mode="mostrecent",
            registry=registry,
        )
        self.workers_alive = Gauge(
            "trunkline_workers_alive", "Workers whose lease goes on.", multiprocess_mode="mostrecent", registry=registry
        )
