"""Names that clients give threads: a flow's pair, a session.

SQL has them, each with one thread. Redis remembers those in use, so that SQL need not be asked each time. A thread
that it remembers may have been deleted: that is looked at each time, and its tombstone outlasts what is remembered.
"""

from gateway.deps import Services
from gateway.patience import PATIENCE_SECONDS
from shared.db import names
from shared.redis import patiently

REMEMBERED_SECONDS = 24 * 3600
"""After a name's last use. Less than tombstones are kept (modem.retention.TOMBSTONE_SECONDS)."""


async def thread_named(services: Services, name: str, mine: str) -> str:
    """The thread that a key stands for: from now on `mine`, unless it has one that nobody has deleted.

    Raises AppError UNAVAILABLE where only SQL knows, and is away.
    """
    kept = await patiently(lambda: services.redis.getex(name, ex=REMEMBERED_SECONDS), PATIENCE_SECONDS)
    found = str(kept) if kept else await _claimed(services, name, mine)
    while found != mine and await services.history.was_deleted(found):
        found = await _claimed(services, name, mine, instead_of=found)
    return found


async def _claimed(services: Services, name: str, mine: str, *, instead_of: str | None = None) -> str:
    async with services.db.begin() as c:
        found = await names.claim(c, name, mine, instead_of=instead_of)
    await patiently(lambda: services.redis.set(name, found, ex=REMEMBERED_SECONDS), PATIENCE_SECONDS)
    return found
