"""What goes wrong inside a process of the fleet: failpoints, clock, queue, a loop that stands still.

An entry module installs it around the product's own `main`; the product knows nothing of it.
"""

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from shared.queue import RunQueue
from shared.scripts import Scripts
from shared.slots.slots import Ring
from tests.chaos.control import Orders, death_path, folder, orders_path

POLL_SECONDS = 0.05
POINTS = (
    "after_claim",
    "after_intent",
    "before_effect",
    "after_effect",
    "before_commit",
    "after_commit",
    "after_wait",
    "after_signal",
    "mid_stream",
)
"""At which a worker can be killed; `mid_drain` is another, for a worker that was told to stop."""
GATEWAY_POINTS = ("after_submit", "after_signal")
REAL_TIME = time.time
REAL_TIME_NS = time.time_ns


class Hooks:
    """Of this process, which is called `name`."""

    def __init__(self, name: str) -> None:
        self.root = folder()
        self.orders = Orders()
        self.draining = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self._path = orders_path(self.root, name)
        self._random = random.Random(name)
        self._passed = 0
        self._blocked = False

    def install(self) -> None:
        time.time = lambda: REAL_TIME() + self.orders.clock_seconds
        time.time_ns = lambda: REAL_TIME_NS() + int(self.orders.clock_seconds * 1e9)
        self._watch_scripts()
        self._spoil_queue()
        threading.Thread(target=self._follow_orders, name="chaos", daemon=True).start()

    def point(self, name: str) -> None:
        """Kills this process if it is to die here."""
        orders = self.orders
        if not name or orders.point != name or orders.pid != os.getpid():
            return
        self._passed += 1
        if self._passed >= orders.passes:
            path = death_path(self.root, os.getpid())
            path.write_text(json.dumps({"point": name, "at": REAL_TIME()}))
            os.kill(os.getpid(), signal.SIGKILL)

    def _follow_orders(self) -> None:
        while True:
            self.orders = Orders.read(self._path) if self._path.exists() else Orders()
            if self.orders.block_seconds and self.orders.pid == os.getpid() and self.loop and not self._blocked:
                self._blocked = True
                self.loop.call_soon_threadsafe(time.sleep, self.orders.block_seconds)
            time.sleep(POLL_SECONDS)

    def _watch_scripts(self) -> None:
        call = Scripts.call

        async def watched(scripts: Scripts, name: str, keys: list[str], args: list[Any], **how: Any) -> Any:
            before, after = points_of(name, args)
            self.point(before)
            answer = await call(scripts, name, keys, args, **how)
            self.point(after)
            if self.draining:
                self.point("mid_drain")
            return answer

        patch.object(Scripts, "call", watched).start()

    def _spoil_queue(self) -> None:
        send = RunQueue._send

        def spoiled(queue: RunQueue, rings: Sequence[Ring]) -> None:
            orders = self.orders
            for ring in [ring for ring in rings for _ in range(orders.copies)]:
                if self._random.random() < orders.drop:
                    continue
                if orders.delay_seconds:
                    timer = threading.Timer(orders.delay_seconds, send, [queue, [ring]])
                    timer.daemon = True
                    timer.start()
                else:
                    send(queue, [ring])

        patch.object(RunQueue, "_send", spoiled).start()


def points_of(name: str, args: Sequence[Any]) -> tuple[str, str]:
    """The failpoints before and after a transition, as its arguments tell it (shared/threads/*.lua)."""
    if name == "commit" and args[4]:
        begins = str(args[6]) in ("running", "waiting", "waiting_human")
        return ("", "after_intent") if begins else ("before_commit", "after_commit")
    if name == "release":
        return "", "after_wait" if args[4] == "waiting" else ""
    if name == "emit":
        return "", "mid_stream" if args[4] and args[5] == "agent.delta" else ""
    return "", f"after_{name}"
