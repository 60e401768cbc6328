"""A worker's own HTTP port: its metrics for Prometheus, its health for orchestrators. In a thread, beside the loop."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry

from shared.config import MetricsSettings
from shared.errors import AppError, ErrorCode
from shared.metrics import CONTENT_TYPE, exposition, may_read

TRIES = 100
"""Ports from the one that is set on: several workers on a machine have one each."""
REQUEST_SECONDS = 10

log = logging.getLogger("trunkline.worker")

Question = Callable[[], bool]


class WorkerPort:
    """`number` is the port that it has got."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.number: int = server.server_address[1]
        self._server = server
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def open_port(
    settings: MetricsSettings, registry: CollectorRegistry, *, alive: Question, ready: Question
) -> WorkerPort | None:
    """None where none is wanted. `alive`, `ready`: what /health/live and /health/ready answer; any thread asks.

    Raises AppError INVALID_CONFIG where no port is free.
    """
    if settings.worker_port is None:
        return None
    handler = partial(_Handler, settings, registry, {"/health/live": alive, "/health/ready": ready})
    for number in range(settings.worker_port, min(settings.worker_port + TRIES, 65536)):
        with suppress(OSError):
            port = WorkerPort(_Server((settings.worker_host, number), handler))
            log.info("metrics at http://%s:%d/metrics", settings.worker_host, port.number)
            return port
    raise AppError(
        ErrorCode.INVALID_CONFIG,
        f"No port is free at {settings.worker_host} from {settings.worker_port} on (metrics.worker_port).",
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_SECONDS

    def __init__(
        self, settings: MetricsSettings, registry: CollectorRegistry, health: dict[str, Question], *connection: object
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._health = health
        super().__init__(*connection)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        path, token = self.path.partition("?")[0], self._settings.token
        if question := self._health.get(path):
            self._answer(HTTPStatus.OK if question() else HTTPStatus.SERVICE_UNAVAILABLE, b"")
        elif path != "/metrics":
            self._answer(HTTPStatus.NOT_FOUND, b"")
        elif token is not None and not may_read(token, self.headers.get("Authorization", "")):
            self._answer(HTTPStatus.UNAUTHORIZED, b"")
        else:
            self._answer(HTTPStatus.OK, exposition(self._registry))

    def _answer(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Whoever asks does so all the time."""
