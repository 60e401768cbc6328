"""What runs have cost."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from gateway.deps import Caller, WithServices
from gateway.openapi import errors
from gateway.routes.answers import UsageAnswer
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.queries import RunsWanted
from shared.db import history

router = APIRouter(prefix="/usage", tags=["runs"], route_class=StrictJsonRoute)


class UsageWanted(RunsWanted):
    by: list[Literal["day", "model", "runnable_type", "runnable_id", "project_id"]] = Field(
        default=["day"], max_length=5, description="What is summed up together."
    )


@router.get("", operation_id="getUsage", summary="What runs have cost", responses=errors(400))
async def get_usage(
    services: WithServices, caller: Caller, wanted: Annotated[UsageWanted, Query()]
) -> list[UsageAnswer]:
    """Summed up by day (UTC, of the runs' creation), model, ... A run counts once it is archived, within seconds."""
    async with services.db.connect() as c:
        rows = await history.usage(c, caller.tenant, wanted.filter(), wanted.by)
    return [UsageAnswer(**row) for row in rows]
