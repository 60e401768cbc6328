"""A Celery worker with the product's settings: `python -m tests.modem.consumer BROKER_URL SLOTS`.

Its task notes what it was told of in the list `taken`, and stays as long as there is a key of that name.
"""

import sys
import time
from typing import Any

import redis
from celery.signals import worker_ready

from modem.app import before_waiting, create_app
from shared.config import WorkerSettings
from shared.queue import EXECUTE_RUN


def main() -> None:
    url, slots = sys.argv[1:]
    app = create_app(url, WorkerSettings(concurrency=int(slots)))
    client = redis.Redis.from_url(url)

    def note(run_id: str) -> None:
        client.rpush("taken", run_id)
        while client.exists(run_id):
            time.sleep(0.02)

    def let_go() -> None:
        client.set("let go", 1)

    app.task(name=EXECUTE_RUN)(note)
    before_waiting(app, let_go)
    worker_ready.connect(_wake_often, weak=False)
    app.Worker(pool="threads", quiet=True, without_gossip=True, without_mingle=True, without_heartbeat=True).start()


def _wake_often(sender: Any, **_: Any) -> None:
    """Celery's loop has timers of many seconds. With one like this, something always wakes it before its BRPOP ends."""
    sender.timer.call_repeatedly(0.02, lambda: None)


if __name__ == "__main__":
    main()
