"""What was done in a workspace, and what was refused."""

from typing import Self

from fastapi import APIRouter
from pydantic import BaseModel, Field

from gateway.deps import Admin, WithServices
from gateway.openapi import errors
from gateway.routes.answers import Page, Timestamp
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import Cursor, Limit, Time, Word, page_of, place_of
from shared.db import audit
from shared.db.audit import Entry, Filter, Outcome
from shared.db.rows import Place
from shared.types import JSON

router = APIRouter(prefix="/audit", tags=["audit"], route_class=StrictJsonRoute)


class AuditEntry(BaseModel):
    id: str
    at: Timestamp
    actor: str | None = Field(description="The id of the key; null: nobody was known.")
    user_uuid: str | None
    action: str = Field(
        description="The operation's id, as /openapi.json has it; `leftOut`: more requests of callers whom nobody "
        "knows were refused, and `detail` says how many.",
        examples=["createKey"],
    )
    resource_type: str | None = Field(examples=["key"])
    resource_id: str | None
    outcome: Outcome = Field(description="done; refused (401, 403); failed (5xx): perhaps it was done.")
    request_id: str | None = Field(description="As in the service's log.")
    address: str | None
    detail: JSON | None

    @classmethod
    def of(cls, entry: Entry) -> Self:
        return cls.model_validate(entry, from_attributes=True)


@router.get("", operation_id="listAudit", summary="The audit log, newest first", responses=errors(400))
async def list_audit(
    services: WithServices,
    caller: Admin,
    *,
    limit: Limit = 50,
    cursor: Cursor = None,
    actor: Word | None = None,
    action: Word | None = None,
    resource_id: Word | None = None,
    outcome: Outcome | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> Page[AuditEntry]:
    """Changes that were asked for, and accesses that were refused; written within seconds."""
    caller.check_whole_workspace()
    wanted = Filter(actor, action, outcome, resource_id, since, until)
    after = place_of(cursor)
    async with services.db.connect() as c:
        found = await audit.page(c, caller.workspace, wanted, after=after, limit=limit + 1)
    return page_of(found, limit, AuditEntry.of, lambda entry: Place(entry.at, entry.id))
