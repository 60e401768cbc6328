"""Rows that clients make, once each, however often they ask with the same Idempotency-Key."""

from typing import Any, TypeVar

from gateway.auth import Principal
from gateway.deps import Services
from shared.db.rows import Get
from shared.ids import new_id

T = TypeVar("T")


async def begun(
    services: Services,
    caller: Principal,
    get: Get[T],
    key: str | None,
    request: list[Any],
) -> tuple[str, T | None]:
    """The id of the row, and the row where this request has made it before: then it is not judged anew, for what it
    names may be gone. Raises AppError IDEMPOTENCY_CONFLICT.
    """
    mine = new_id()
    row_id = await services.idempotency.reserve(caller.tenant, key, request, mine)
    if row_id == mine:
        return row_id, None
    async with services.db.connect() as c:
        return row_id, await get(c, caller.tenant, row_id)
