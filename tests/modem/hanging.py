"""A worker without Celery whose event loop stops on SIGUSR1: `python -m tests.modem.hanging HOW`, with its settings
in the environment. HOW is `waiting` (other threads go on), `logging` (with the log's lock) or `computing` (in C, with
the interpreter's lock).
"""

import logging
import re
import signal
import sys
import threading
import time

from modem.worker import Worker
from shared.config import load_settings
from shared.log import configure_logging
from shared.queue import celery_app


def wait() -> None:
    time.sleep(3600)


def wait_in_the_log() -> None:
    with logging.root.handlers[0].lock or threading.Lock():
        time.sleep(3600)


def compute() -> None:
    re.match("(a+)+$", "a" * 60 + "b")


HANGS = {"waiting": wait, "logging": wait_in_the_log, "computing": compute}


def main() -> None:
    settings = load_settings()
    configure_logging(settings.log, "worker")
    worker = Worker(settings, celery_app(settings.broker_url), "worker-1")
    hang = HANGS[sys.argv[1]]
    signal.signal(signal.SIGUSR1, lambda *_: worker._loop.call_soon_threadsafe(hang))
    worker.start()
    print("ready", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
