"""The Celery app of a worker and its settings. What Celery must not decide is switched off (docs/decisions/0003)."""

from celery import Celery

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
