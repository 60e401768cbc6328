"""Waiting for something to hold, with a bound."""

import asyncio
import inspect
from typing import Any


async def until(condition: Any, seconds: float = 20) -> None:
    """Returns when the condition holds; what it gives is awaited where it can be. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(0.01)
