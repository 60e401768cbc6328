"""A worker process: `python -m modem --name worker-1`.

Exit code 0 after a drain on SIGTERM or SIGINT.
"""

import argparse
import asyncio
import sys
from typing import Any

from celery.signals import setup_logging, worker_shutting_down

from modem.app import before_waiting, create_app
from modem.tasks import register
from modem.worker import Worker
from shared.config import export_env_file, load_settings
from shared.db.schema import check_at_start
from shared.errors import AppError
from shared.log import adopt_loggers, configure_logging
from shared.queue import celery_app
from shared.tracing import check_tracing

LET_GO_SECONDS = 1.5
"""A BRPOP's timeout, and some more."""


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m modem", description=__doc__)
    arguments.add_argument("--name", default="worker", help="a label for logs and for GET /health")
    name = arguments.parse_args().name
    try:
        export_env_file()
        settings = load_settings()
        configure_logging(settings.log, name)
        check_tracing(settings.tracing)
        asyncio.run(check_at_start(settings))
    except AppError as error:
        print(error.detail, file=sys.stderr)  # noqa: T201 - for whoever started it, log or not
        return 2
    # Celery would give its loggers a format of its own; a receiver, whatever it does, keeps it from that.
    setup_logging.connect(_keep_our_logs, weak=False)
    app = create_app(settings.broker_url, settings.worker)
    worker = Worker(settings, celery_app(settings.broker_url), name)
    register(app, worker)

    # Celery stops taking messages and waits for its threads, which wait for their runs: those end by the drain. It
    # begins when the queues are let go of, or without that where the broker is away.
    before_waiting(app, worker.drain)
    worker_shutting_down.connect(lambda **_: worker.drain(after_seconds=LET_GO_SECONDS), weak=False)

    worker.start()
    adopt_loggers()  # LiteLLM brought its own with its import
    celery = app.Worker(
        hostname=name, pool="threads", quiet=True, without_gossip=True, without_mingle=True, without_heartbeat=True
    )
    celery.start()
    worker.stop()
    return int(celery.exitcode or 0)


def _keep_our_logs(**_: Any) -> None:
    """The logs are configured already."""


if __name__ == "__main__":
    sys.exit(main())
