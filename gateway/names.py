"""Names that clients give threads: a flow's pair, a session."""

from redis.exceptions import WatchError

from gateway.deps import Services
from shared.redis import patiently

PATIENCE_SECONDS = 2.0


async def thread_named(services: Services, name: str, mine: str) -> str:
    """The thread that a key stands for: from now on `mine`, unless it has one that nobody has deleted.

    Raises AppError UNAVAILABLE where only SQL knows what has become of that.
    """
    kept = await services.idempotency.first(name, mine)
    while kept != mine and await services.history.was_deleted(kept):
        kept = await _replaced(services, name, kept, mine) or mine
    return kept


async def _replaced(services: Services, name: str, old: str, mine: str) -> str | None:
    """What the name stands for now: `mine`, if it was the old one until now."""

    async def replace() -> str | None:
        async with services.redis.pipeline() as pipeline:
            await pipeline.watch(name)
            now = await pipeline.get(name)
            if now != old:
                return None if now is None else str(now)
            pipeline.multi()  # type: ignore[no-untyped-call]
            pipeline.set(name, mine)
            try:
                await pipeline.execute()
            except WatchError:
                return old
            return mine

    return await patiently(replace, PATIENCE_SECONDS)
