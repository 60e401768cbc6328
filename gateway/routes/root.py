"""What is here: the first thing somebody meets who opens the address."""

from fastapi import APIRouter
from pydantic import BaseModel

from gateway.openapi import public_errors
from shared.version import VERSION

router = APIRouter(tags=["root"])


class Root(BaseModel):
    name: str
    version: str
    links: dict[str, str]


@router.get("/", operation_id="getRoot", summary="What is here", responses=public_errors())
async def root() -> Root:
    links = {name: f"/{name}" for name in ("api", "docs", "redoc", "health", "metrics")}
    return Root(name="Trunkline", version=VERSION, links={**links, "openapi": "/openapi.json"})
