"""Signing in with a browser, and tickets for what a browser cannot send a key with."""

from datetime import UTC, datetime
from typing import Self

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import RedirectResponse, Response

from gateway.audit import PRINCIPAL
from gateway.auth import SESSION_SECONDS, Principal
from gateway.deps import Caller, Services, WithServices
from gateway.openapi import errors, public_errors
from gateway.routes.answers import StreamTicket, Timestamp
from gateway.routes.bodies import Body
from gateway.routes.json_route import StrictJsonRoute
from shared import tickets
from shared.errors import AppError, ErrorCode
from shared.types import Scope

api = APIRouter(tags=["session"], route_class=StrictJsonRoute)
root = APIRouter()


class SessionBody(Body):
    key: str = Field(min_length=1, max_length=1000, description="An API key, or one of the settings.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"key": "tl_06f3k2m1..."}]})


class SessionAnswer(BaseModel):
    workspace_id: str
    project_id: str | None = Field(description="The only project that it sees.")
    scopes: list[Scope]
    expires_at: Timestamp | None

    @classmethod
    def of(cls, caller: Principal) -> Self:
        ends_at = None if caller.ends_at is None else datetime.fromtimestamp(caller.ends_at, UTC)
        scopes = sorted(caller.scopes)
        return cls(workspace_id=caller.workspace, project_id=caller.project, scopes=scopes, expires_at=ends_at)


@api.post("/stream-tickets", operation_id="createStreamTicket", summary="A ticket for streams", responses=errors())
async def create_stream_ticket(services: WithServices, caller: Caller) -> StreamTicket:
    """Goes into a stream's address as `?ticket=`, where an EventSource can send no key. Good for a minute."""
    ticket, seconds = services.auth.new_stream_ticket(caller)
    return StreamTicket(ticket=ticket, expires_in=seconds)


@api.post("/session", operation_id="signIn", summary="Sign in with a key, for a cookie", responses=errors(400))
async def sign_in(
    request: Request, response: Response, services: WithServices, body: SessionBody | None = None
) -> SessionAnswer:
    """The key is the body's or, without one, that of the headers. The session may what the key may, and ends with it,
    by DELETE, or after two weeks. With the cookie only the gateway's own pages may change something.
    """
    caller = request.scope[PRINCIPAL] = await services.auth.signed_in(request, body.key if body else None)
    await services.limits.count(caller, request)
    _leave_cookie(services, request, response, services.auth.cookie_of(caller.workspace, caller.key_id, caller.session))
    return SessionAnswer.of(caller)


@api.delete("/session", operation_id="signOut", summary="Sign out", status_code=204, responses=public_errors(403, 503))
async def sign_out(request: Request, response: Response, services: WithServices) -> None:
    """The session of the cookie ends at once, on every gateway; what is open with it within `auth.recheck_seconds`."""
    await services.auth.sign_out(request, services.redis)
    response.delete_cookie(services.auth.cookie_name, httponly=True, samesite="lax")


@root.get("/session", include_in_schema=False)
async def follow_link(services: WithServices, request: Request, ticket: str = "") -> RedirectResponse:
    """The link that is printed at the start: works once, and leaves a cookie."""
    workspace = await tickets.redeem(services.redis, ticket)
    if workspace is None:
        raise AppError(ErrorCode.UNAUTHORIZED, "This link was used already, or is too old. Ask for another one.")
    answer = RedirectResponse("/", status_code=303)
    _leave_cookie(services, request, answer, services.auth.cookie_of(workspace))
    return answer


def _leave_cookie(services: Services, request: Request, answer: Response, cookie: str) -> None:
    answer.set_cookie(
        services.auth.cookie_name,
        cookie,
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="lax",
        secure=(services.settings.api.public_url or str(request.url)).startswith("https:"),
    )
