"""What clients call their threads: a name has one thread, however many give it at once."""

import hashlib

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.rows import insert
from shared.db.tables.archive import names


async def claim(c: AsyncConnection, name: str, thread_id: str, *, instead_of: str | None = None) -> str:
    """The thread that the name stands for from now on: the given one, unless it has one other than `instead_of`.

    `name`: of any length, and the tenant is part of it.
    """
    mine = names.c.name == _digest(name)
    row = {"name": _digest(name), "thread_id": thread_id}
    while True:
        if instead_of is not None:
            await c.execute(update(names).where(mine, names.c.thread_id == instead_of).values(thread_id=thread_id))
        await c.execute(insert(c, names).values(row).on_conflict_do_nothing(index_elements=["name"]))
        if found := await named(c, name):  # Postgres may have been told meanwhile that its thread is gone
            return found


async def named(c: AsyncConnection, name: str) -> str | None:
    found: str | None = await c.scalar(select(names.c.thread_id).where(names.c.name == _digest(name)))
    return found


async def forget(c: AsyncConnection, thread_id: str) -> None:
    """Frees what stands for the thread."""
    await c.execute(delete(names).where(names.c.thread_id == thread_id))


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
