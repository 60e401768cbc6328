"""What workers do now and then, and what of it one of them does for all."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from modem.sweep import share_of
from shared.errors import AppError, ErrorCode
from shared.redis import passes
from shared.workers.registry import WorkerRegistry
from workflow.sandbox.machine import MachineError

log = logging.getLogger("trunkline.worker")

FIRST_SHARD = 0


async def now_and_then(every_seconds: float, chore: Callable[[], Awaitable[object]], what: str) -> None:
    """Until cancelled, for the first time after `every_seconds`. What fails is logged, and tried again at its time."""
    while True:
        await asyncio.sleep(every_seconds)
        try:
            await chore()
        except (AppError, MachineError) as error:
            log.warning("%s comes later: %s", what, error)
        except Exception as error:
            log.warning("%s failed: %s", what, error, exc_info=not passes(error))


def is_away(error: Exception) -> bool:
    """Redis or SQL: it passes, and is no fault of what is being done."""
    return passes(error) or (isinstance(error, AppError) and error.code is ErrorCode.UNAVAILABLE)


async def is_first(my_name: str | None, registry: WorkerRegistry) -> bool:
    """Whether this worker is the one that does what is done by one for all."""
    return FIRST_SHARD in share_of(my_name, await registry.names())
