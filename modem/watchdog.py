"""Ends the process whose event loop hangs. Its lease is gone by then; what supervises the worker starts a new one.

Two lines, because a loop can hang in two ways. One that waits for ever, or computes in Python, leaves other threads
their turns: the thread that looks sees it. One that holds the interpreter's lock (a regular expression that backtracks
without end, a native call) or the log's stops that thread too: then faulthandler's own, which needs no lock, ends the
process.
"""

import faulthandler
import logging
import os
import sys
import threading
import time
import traceback

EXIT_STATUS = 70
"""EX_SOFTWARE of sysexits.h. Faulthandler exits with 1."""

log = logging.getLogger("trunkline.watchdog")


class Watchdog:
    """`tick` is called by the loop, `look` every `look_seconds` by a thread of its own.

    A process that was stopped for a while (SIGSTOP, a frozen container) has not hung: time in which nobody looked does
    not count. Only faulthandler cannot tell the two apart, so it waits twice as long.
    """

    def __init__(self, hang_seconds: float, *, look_seconds: float) -> None:
        self._hang_seconds = hang_seconds
        self._look_seconds = look_seconds
        self._ticked = self._looked = time.monotonic()
        self._seen_tick = self._ticked
        self._seen_still = 0.0
        self._loop_thread = 0

    def tick(self) -> None:
        self._loop_thread = threading.get_ident()
        self._ticked = time.monotonic()

    def standstill(self) -> float:
        """Seconds since the loop's last tick."""
        return time.monotonic() - self._ticked

    def look(self) -> None:
        """Does not return when the loop has hung for too long."""
        faulthandler.dump_traceback_later(2 * self._hang_seconds + self._look_seconds, exit=True)
        now = time.monotonic()
        if self._ticked != self._seen_tick:
            self._seen_tick, self._seen_still = self._ticked, 0.0
        else:
            self._seen_still += min(now - self._looked, 2 * self._look_seconds)
        self._looked = now
        if self._seen_still > self._hang_seconds:
            self._exit()

    def stop(self) -> None:
        faulthandler.cancel_dump_traceback_later()

    def _exit(self) -> None:
        # Faulthandler prints a hundred threads, the newest first, and the loop's is among the oldest.
        frame = sys._current_frames().get(self._loop_thread)
        stack = "".join(traceback.format_stack(frame)) if frame else "it has not started"
        log.critical(
            "the event loop has not turned for %.0f s: the worker exits. It is in\n%s", self.standstill(), stack
        )
        faulthandler.dump_traceback(all_threads=True)
        os._exit(EXIT_STATUS)
