"""Ending asyncio tasks for sure."""

import asyncio
from collections.abc import Collection
from typing import Any

AGAIN_SECONDS = 0.5


async def cancel(tasks: Collection[asyncio.Future[Any]]) -> None:
    """Cancels until all have ended; their outcomes are the caller's to read.

    Once is not enough: redis-py waits with `asyncio.wait_for`, which before Python 3.12 can swallow a cancellation
    that comes together with the answer (python/cpython#86296).
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_SECONDS)
