"""The tools that agents may be given, as the workers tell of them."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from gateway.deps import Caller, WithServices
from gateway.openapi import errors
from gateway.routes.answers import Page
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import Cursor, Limit, offset_of
from shared.errors import AppError, ErrorCode
from shared.types import JSON
from shared.workers.tools import ToolCard, ToolType, told_tools

router = APIRouter(prefix="/tools", tags=["tools"], route_class=StrictJsonRoute)


class ToolAnswer(BaseModel):
    name: str = Field(description="As models call it.")
    description: str
    type: ToolType = Field(description="custom: of a Python module or package of yours.")
    effect: str = Field(description="What a second run of a call would do: repeatable, idempotent, or none (known).")
    enabled: bool = Field(description="Whether agents are given it where their run does not say otherwise.")
    input_schema: JSON


@router.get("", operation_id="listTools", summary="The tools of the workers", responses=errors(400))
async def list_tools(services: WithServices, _: Caller, limit: Limit = 50, cursor: Cursor = None) -> Page[ToolAnswer]:
    """Built-in ones, yours, and those of MCP servers, by name. Empty until a worker has started."""
    start = offset_of(cursor)
    cards = await told_tools(services.redis)
    return Page(
        items=[_answer(card) for card in cards[start : start + limit]],
        next_cursor=str(start + limit) if len(cards) > start + limit else None,
    )


@router.get("/{name}", operation_id="getTool", summary="A tool", responses=errors(404))
async def get_tool(name: Annotated[str, Path(max_length=200)], services: WithServices, _: Caller) -> ToolAnswer:
    for card in await told_tools(services.redis):
        if card.name == name:
            return _answer(card)
    raise AppError(ErrorCode.NOT_FOUND, f"No worker has a tool named {name!r}.")


def _answer(card: ToolCard) -> ToolAnswer:
    return ToolAnswer.model_validate(card, from_attributes=True)
