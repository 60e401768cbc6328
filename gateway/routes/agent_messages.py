"""Messages to agents: kept, told to whoever watches, acknowledged within a window of time."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from gateway.agents.known import announce, check_enabled
from gateway.deps import Caller, IdempotencyKey, Runner, WithServices
from gateway.openapi import errors
from gateway.routes.agent_answers import AgentMessageAnswer
from gateway.routes.agent_bodies import NewMessageBody
from gateway.routes.answers import Page
from gateway.routes.bodies import NoBody
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import Cursor, Limit, Skip, page_of, place_of
from shared.channels import ChannelEventType
from shared.db import agents, messages
from shared.db.messages import AgentMessage
from shared.db.rows import Place
from shared.ids import new_id

router = APIRouter(
    prefix="/agents/{agent_id}/messages",
    tags=["agents"],
    route_class=StrictJsonRoute,
    dependencies=[Depends(check_enabled)],
)


@router.get("", operation_id="listAgentMessages", summary="Its messages, newest first", responses=errors(400, 404, 501))
async def list_messages(
    agent_id: str,
    *,
    services: WithServices,
    caller: Caller,
    acknowledged: Annotated[bool | None, Query(description="Only those that are, or are not, acknowledged.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    skip: Skip = 0,
) -> Page[AgentMessageAnswer]:
    """Those that are kept (`agents.message_retention_limit`)."""
    after = place_of(cursor)
    async with services.db.connect() as c:
        agent = await agents.existing(c, caller.tenant, agent_id)
        found = await messages.page(c, agent, acknowledged=acknowledged, after=after, limit=limit + 1, skip=skip)
    return page_of(found, limit, AgentMessageAnswer.of, lambda message: Place(message.created_at, message.id))


@router.post(
    "",
    operation_id="sendAgentMessage",
    summary="Send it a message",
    status_code=201,
    responses=errors(400, 404, 409, 413, 501),
)
async def send_message(
    agent_id: str, body: NewMessageBody, services: WithServices, caller: Runner, idempotency_key: IdempotencyKey = None
) -> AgentMessageAnswer:
    """It is kept, and told (`agent_message`) to those who watch the agent's channels. It starts no run."""
    request = ["agent message", agent_id, body.model_dump()]
    message_id = await services.idempotency.reserve(caller.tenant, idempotency_key, request, new_id())
    now = datetime.now(UTC)
    until = now + timedelta(seconds=services.settings.agents.message_ack_window_seconds)
    async with services.db.begin() as c:
        agent = await agents.existing(c, caller.tenant, agent_id)
        said = {"role": body.role, "sender": body.sender, "content": body.content, "data": body.data}
        new = AgentMessage(message_id, agent.workspace, agent.id, created_at=now, ack_until=until, **said)  # type: ignore[arg-type]
        message = await messages.add(c, new, keep=services.settings.agents.message_retention_limit)
    answer = AgentMessageAnswer.of(message)
    if message is new:
        await announce(services, ChannelEventType.MESSAGE, agent, {"message": answer.model_dump(mode="json")})
    return answer


@router.post(
    "/{message_id}/ack",
    operation_id="acknowledgeAgentMessage",
    summary="Acknowledge a message",
    responses=errors(400, 404, 409, 413, 501),
)
async def acknowledge(
    agent_id: str, message_id: str, services: WithServices, caller: Runner, _: NoBody | None = None
) -> AgentMessageAnswer:
    """Within `agents.message_ack_window_seconds`; later it is 409. Once acknowledged it stays so."""
    async with services.db.begin() as c:
        agent = await agents.existing(c, caller.tenant, agent_id)
        return AgentMessageAnswer.of(await messages.acknowledge(c, agent, message_id))
