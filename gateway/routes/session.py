"""Signing in with a browser, and tickets for what a browser cannot send a key with."""

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse

from gateway.auth import SESSION_SECONDS
from gateway.deps import Caller, WithServices
from gateway.openapi import errors
from gateway.routes.answers import StreamTicket
from shared import tickets
from shared.errors import AppError, ErrorCode

api = APIRouter(tags=["session"])
root = APIRouter()


@api.post("/stream-tickets", operation_id="createStreamTicket", summary="A ticket for streams", responses=errors())
async def create_stream_ticket(services: WithServices, caller: Caller) -> StreamTicket:
    """Goes into a stream's address as `?ticket=`, where an EventSource can send no key. Good for a minute."""
    ticket, seconds = services.auth.new_stream_ticket(caller)
    return StreamTicket(ticket=ticket, expires_in=seconds)


@root.get("/session", include_in_schema=False)
async def open_session(services: WithServices, request: Request, ticket: str = "") -> RedirectResponse:
    """The link that is printed at the start: works once, and leaves a cookie."""
    workspace = await tickets.redeem(services.redis, ticket)
    if workspace is None:
        raise AppError(ErrorCode.UNAUTHORIZED, "This link was used already, or is too old. Ask for another one.")
    answer = RedirectResponse("/", status_code=303)
    answer.set_cookie(
        services.auth.cookie_name,
        services.auth.new_session(workspace),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="lax",
        secure=(services.settings.api.public_url or str(request.url)).startswith("https:"),
    )
    return answer
