"""The workers, for those who run them."""

from dataclasses import asdict

from fastapi import APIRouter
from pydantic import BaseModel, Field

from gateway.deps import Operator, WithServices
from gateway.openapi import errors
from gateway.routes.answers import Page, Timestamp
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import Limit, NumberCursor, offset_of

router = APIRouter(prefix="/workers", tags=["workers"], route_class=StrictJsonRoute)


class WorkerAnswer(BaseModel):
    name: str = Field(examples=["worker-1-0a1b2c"])
    label: str = Field(description="As it was started.", examples=["worker-1"])
    alive: bool = Field(description="Whether its lease goes on; otherwise its runs are about to go on elsewhere.")
    host: str
    pid: int
    since: Timestamp | None
    runs: int = Field(description="In its hands, of all workspaces.")
    version: str | None = Field(description="Of Trunkline.")
    catalogue: str | None = Field(description="Of what it can run: the same for workers that know the same.")
    metrics_port: int | None


@router.get("", operation_id="listWorkers", summary="The workers", responses=errors(400))
async def list_workers(
    services: WithServices, _: Operator, limit: Limit = 50, cursor: NumberCursor = None
) -> Page[WorkerAnswer]:
    """By name. For the operator's keys only."""
    start = offset_of(cursor)
    cards = await services.workers.cards()
    held = await services.workers.runs_held()
    page = cards[start : start + limit]
    items = [WorkerAnswer.model_validate({**asdict(card), "runs": held[card.name]}) for card in page]
    return Page(items=items, next_cursor=str(start + limit) if len(cards) > start + limit else None)
