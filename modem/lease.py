"""The worker's lease: one for all its runs, renewed from a thread and a connection of its own.

A busy event loop keeps its lease; a hung one loses it, because the thread renews only while the loop's tick is fresh,
and in the end (`worker.hang_seconds`) its process, which whoever supervises it starts anew (modem/watchdog.py).
While Redis is away nothing is given up: the worker cannot know whether it was buried, and every write of its is fenced.
"""

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import redis

from modem.watchdog import Watchdog
from shared import keys, workers
from shared.config import RedisSettings, WorkerSettings
from shared.scripts import source

log = logging.getLogger("trunkline.lease")


class Lease:
    """`on_lost(old name)` is called from the lease's thread when the worker was buried.

    `name` is None until the worker is registered, at first and again after a burial: then it claims nothing.
    """

    def __init__(self, settings: WorkerSettings, redis_settings: RedisSettings, label: str) -> None:
        self._settings = settings
        self._label = label
        self._functions: Sequence[str] = ()
        self._told: Mapping[str, str | int] = {}
        self._client = redis.Redis.from_url(
            redis_settings.url, socket_timeout=settings.renew_seconds, socket_connect_timeout=settings.renew_seconds
        )
        self._renew = self._client.register_script(source(workers.__name__, "renew"))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._watchdog = Watchdog(settings.hang_seconds, look_seconds=settings.renew_seconds)
        self._on_lost: Callable[[str], None] = lambda name: None
        self.name: str | None = None

    def start(
        self, on_lost: Callable[[str], None], functions: Sequence[str] = (), told: Mapping[str, str | int] | None = None
    ) -> None:
        """Registers the worker, waiting for Redis if need be, and keeps it registered.

        `functions`: what it has. `told`: more of its card (`WorkerCard`).
        """
        self._on_lost = on_lost
        self._functions = functions
        self._told = told or {}
        while not self._register() and not self._stop.wait(0.5):
            log.warning("Redis is away; the worker registers when it is back")
        self._watchdog.look()
        self._thread.start()

    def standstill(self) -> float:
        """Seconds since the event loop last turned."""
        return self._watchdog.standstill()

    def tick(self) -> None:
        """Told by the event loop that it still turns."""
        self._watchdog.tick()

    def stop(self) -> None:
        """Gives the lease up. Call it when the worker holds no run any more."""
        self._stop.set()
        self._thread.join(timeout=5)
        self._watchdog.stop()
        try:
            if self.name is not None:
                self._client.zrem(keys.WORKERS, self.name)
                self._client.delete(keys.worker(self.name))
        except redis.RedisError as error:
            log.warning("could not unregister (%s); the lease ends by itself", error)
        self._client.close()

    def _run(self) -> None:
        while not self._stop.wait(self._settings.renew_seconds):
            self._watchdog.look()
            if self._watchdog.standstill() > self._settings.watchdog_seconds:
                log.error("the event loop has not turned for %s s: not renewing", self._settings.watchdog_seconds)
                continue
            if self.name is None:
                self._register()
            else:
                self._keep(self.name)

    def _keep(self, name: str) -> None:
        try:
            kept = self._renew(keys=[keys.WORKERS], args=[name, self._lease_ms])
        except redis.RedisError as error:
            log.warning("could not renew the lease: %s", error)
            return
        if not kept:
            log.error("the lease of %s had ended; its runs go on elsewhere", name)
            self.name = None
            self._on_lost(name)
            self._register()

    def _register(self) -> bool:
        name = f"{self._label}-{secrets.token_hex(3)}"
        try:
            seconds, microseconds = self._client.time()
            card: dict[Any, Any] = {
                **self._told,
                "since": int(seconds) * 1000 + int(microseconds) // 1000,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "label": self._label,
                "functions": orjson.dumps(self._functions),
            }
            self._client.hset(keys.worker(name), mapping=card)
            self._client.expire(keys.worker(name), 7 * 24 * 3600)
            self._renew(keys=[keys.WORKERS], args=[name, self._lease_ms, "new"])
        except redis.RedisError as error:
            log.warning("could not register: %s", error)
            return False
        self.name = name
        log.info("registered as %s", name)
        return True

    @property
    def _lease_ms(self) -> int:
        return int(self._settings.lease_seconds * 1000)
