"""The producer's half of Celery: a message says "this run may be runnable" and carries its id, nothing else.

A message may be lost, late or doubled: `claim` decides, and the sweeper rings again.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from celery import Celery
from kombu.exceptions import OperationalError

EXECUTE_RUN = "trunkline.execute_run"
QUEUE = "runs"

RING_SECONDS = 2.0

log = logging.getLogger("trunkline.queue")


def celery_app(broker_url: str) -> Celery:
    """Celery with the settings that both its halves need. JSON only; no results; Redis' answers awaited for 5 s."""
    app = Celery("trunkline", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend=None,
        task_publish_retry=False,
        broker_connection_retry_on_startup=True,
        # The visibility timeout decides nothing: messages are acknowledged when taken.
        broker_transport_options={
            "visibility_timeout": 300,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
    )
    return app


class RunQueue:
    """Tells workers of runnable runs. Kombu's publishing blocks, so it has a few threads of its own."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="ring")

    async def ring(self, run_id: str | None) -> None:
        """Waits for `RING_SECONDS` at most, and never raises for a broker that is away: the sweeper rings again."""
        if run_id is None:
            return
        try:
            async with asyncio.timeout(RING_SECONDS):
                await asyncio.get_running_loop().run_in_executor(self._threads, self._send, run_id)
        except (OperationalError, OSError) as error:  # a TimeoutError is an OSError
            log.warning("could not ring for run %s (%r); the sweeper will", run_id, error)

    async def warm_up(self) -> None:
        """Loads what the first message would (0.3 s of imports, a connection), before somebody waits for it."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._connect)
        except (OperationalError, OSError) as error:
            log.warning("the broker is away (%s)", error)

    def _connect(self) -> None:
        with self._app.producer_or_acquire() as producer:
            producer.connection.ensure_connection(max_retries=1, interval_start=0)
        assert self._app.backend  # made, and its module loaded, when first looked at

    def _send(self, run_id: str) -> None:
        self._app.send_task(EXECUTE_RUN, args=[run_id])

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._app.close()
