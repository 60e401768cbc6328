"""The Celery app of a worker and its settings. What Celery must not decide is switched off (docs/decisions/0003)."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery import Celery, bootsteps

from shared.config import WorkerSettings
from shared.queue import celery_app


def create_app(broker_url: str, settings: WorkerSettings) -> Celery:
    app = celery_app(broker_url)
    app.conf.update(
        worker_pool="threads",
        worker_concurrency=settings.concurrency,
        # A message is taken only when a slot is free, and acknowledged when taken: a run waits in the broker, not here.
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        task_acks_late=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_max_retries=None,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
    )
    return app


def before_waiting(app: Celery, then: Callable[[], None]) -> None:
    """At a shutdown, lets go of the queues and calls `then`, before Celery waits for its threads and so for our runs.

    Celery itself stops reading, but its last BRPOP would go on at the server, take a message (of a run that this worker
    gives back, say) and keep it until the threads have ended. A channel that is closed waits for that BRPOP, a second
    at most, and puts back what it took.
    """

    class LetGo(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def close(self, consumer: Any) -> None:
            """Called at a shutdown only; `stop` would also be called when the connection to the broker is lost."""
            with suppress(*consumer.connection_errors, *consumer.channel_errors):
                consumer.task_consumer.cancel()
                consumer.task_consumer.channel.close()
            then()

    app.steps["consumer"].add(LetGo)
