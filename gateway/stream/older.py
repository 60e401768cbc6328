"""What of streams is in SQL only: events that have left Redis, and evicted threads."""

from collections.abc import Sequence

from gateway.stream.entries import Entry, Gap, Position
from shared.db import history, names
from shared.db.engine import Database
from shared.threads.archiving import RecordCopy
from shared.threads.types import StreamEntry


class Older:
    """Raises AppError UNAVAILABLE where SQL is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def thread(self, thread_id: str, *fields: str) -> list[bytes | None]:
        """These fields of an evicted thread, as Redis would give them."""
        async with self._database.connect() as c:
            return _fields(await history.thread(c, thread_id), fields)

    async def run(self, run_id: str, *fields: str) -> list[bytes | None]:
        """As `thread`, of an evicted run."""
        async with self._database.connect() as c:
            return _fields(await history.run(c, run_id), fields)

    async def named(self, name: str) -> str | None:
        """The thread that a name of a client's stands for."""
        async with self._database.connect() as c:
            return await names.named(c, name)

    async def end(self, thread_id: str) -> Position | None:
        """An evicted thread's last event."""
        async with self._database.connect() as c:
            found = await history.thread(c, thread_id)
        return found.last if found else None

    async def page(self, thread_id: str, after: Position, below: Position, count: int) -> list[Entry] | Gap:
        """The first so many events between the two, or what is missing before them."""
        async with self._database.connect() as c:
            thread = await history.thread(c, thread_id)
            if thread and thread.purged > after:
                return Gap(after, thread.purged)
            found = await history.thread_events(c, thread_id, after=after, before=below, count=count)
        return [_entry(event) for event in found]


def _fields(found: RecordCopy | None, names: Sequence[str]) -> list[bytes | None]:
    record = found.record if found else {}
    return [record[name].encode() if name in record else None for name in names]


def _entry(event: StreamEntry) -> Entry:
    fields = {b"t": event.type.encode(), b"r": event.run_id.encode(), b"e": event.event}
    return Entry.parse(event.id.encode(), fields)
