"""Links to what a sandbox serves. The pages themselves come from origins of their own: gateway/sandboxes/origins.py."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import RedirectResponse

from gateway.auth import Principal
from gateway.deps import Runner, Services, WithServices
from gateway.openapi import errors
from gateway.routes.answers import Timestamp
from gateway.routes.bodies import INTEGRAL, Body
from gateway.routes.json_route import StrictJsonRoute
from shared import links

api = APIRouter(prefix="/agent", tags=["ports"], route_class=StrictJsonRoute)
root = APIRouter()

PortNumber = Annotated[int, Path(ge=1, le=65535)]


class LinkBody(Body):
    seconds: Annotated[int, Field(ge=1, le=links.MAX_SECONDS), INTEGRAL] = Field(
        default=3600, description="How long the link is good."
    )
    public: bool = Field(default=False, description="Whether the port needs no ticket for as long, whoever asks.")


class PortLink(BaseModel):
    url: str = Field(examples=["http://8080-06f3k2m1t9v4x7b5c8d0e2g3h4.localhost:8000/?ticket=..."])
    expires_at: Timestamp


@api.post(
    "/{thread_id}/ports/{port}/links",
    operation_id="createPortLink",
    summary="A link to what a sandbox serves on a port",
    responses=errors(400, 404, 413),
)
async def create_port_link(
    thread_id: str, port: PortNumber, services: WithServices, caller: Runner, body: LinkBody | None = None
) -> PortLink:
    """It is good whether or not something listens yet. Whoever has it can open it."""
    body = body or LinkBody()
    link = await _issue(services, caller, thread_id, port, seconds=body.seconds, public=body.public)
    url = links.address(services.settings.api, link)
    return PortLink(url=url, expires_at=datetime.fromtimestamp(link.expires_at, UTC))


@api.delete(
    "/{thread_id}/ports/{port}/links",
    operation_id="endPortLinks",
    summary="End all links to a port",
    status_code=204,
    responses=errors(400, 404),
)
async def end_port_links(thread_id: str, port: PortNumber, services: WithServices, caller: Runner) -> None:
    """Those that agents have given, too; the port is not public any more. What is open is closed within seconds."""
    await links.revoke(services.redis, await services.sandbox_of(caller, thread_id), port)


@root.get("/sandboxes/{thread_id}/{port}", include_in_schema=False)
@root.get("/sandboxes/{thread_id}/{port}/{path:path}", include_in_schema=False)
async def open_port(
    thread_id: str, port: PortNumber, request: Request, services: WithServices, caller: Runner
) -> RedirectResponse:
    """For whoever is signed in: leads to the port's own origin, with a link that is good for an hour."""
    link = await _issue(services, caller, thread_id, port, seconds=3600)
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(
        links.address(services.settings.api, link, f"/{request.path_params.get('path', '')}{query}"), 303
    )


async def _issue(
    services: Services, caller: Principal, thread_id: str, port: int, *, seconds: int, public: bool = False
) -> links.Link:
    sandbox = await services.sandbox_of(caller, thread_id)
    return await links.issue(services.redis, sandbox, port, seconds=seconds, public=public)
