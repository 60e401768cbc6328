"""A Celery worker with the product's settings and one slot, whose task only notes what it was told of, in the list
`taken`: `python -m tests.modem.consumer BROKER_URL`.
"""

import sys

import redis

from modem.app import create_app
from shared.config import WorkerSettings
from shared.queue import EXECUTE_RUN


def main() -> None:
    url = sys.argv[1]
    app = create_app(url, WorkerSettings(concurrency=1))
    client = redis.Redis.from_url(url)

    def note(run_id: str) -> None:
        client.rpush("taken", run_id)

    app.task(name=EXECUTE_RUN)(note)
    app.Worker(pool="threads", quiet=True, without_gossip=True, without_mingle=True, without_heartbeat=True).start()


if __name__ == "__main__":
    main()
