"""The one Celery task: a run may be runnable."""

from celery import Celery

from modem.worker import Worker
from shared.queue import EXECUTE_RUN


def register(app: Celery, worker: Worker) -> None:
    def execute_run(run_id: str) -> None:
        worker.execute(run_id)

    app.task(name=EXECUTE_RUN)(execute_run)
