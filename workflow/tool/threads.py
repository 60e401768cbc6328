"""Threads for what may never end: their own, so that nothing else waits for one of them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Semaphore
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """`number`: calls at the same time. One whose future was cancelled counts until it ends."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._executor = ThreadPoolExecutor(number, thread_name_prefix="function")
        self._free = Semaphore(number)

    def begin(self, call: Callable[[], T]) -> asyncio.Future[T] | None:
        """Calls it, in the caller's context. None: there is no thread for it."""
        if not self._free.acquire(blocking=False):
            return None
        work = self._executor.submit(copy_context().run, call)
        work.add_done_callback(lambda _: self._free.release())
        return asyncio.wrap_future(work)
