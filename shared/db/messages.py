"""Messages that agents are sent, of which the newest are kept."""

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import and_, select
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.agents import Agent
from shared.db.rows import Place, newest_first
from shared.db.tables.agents import agent_messages
from shared.errors import AppError, ErrorCode
from shared.ids import is_row_id
from shared.types import JSON


@dataclass(frozen=True, slots=True)
class AgentMessage:
    """`ack_until`: when it is too late to acknowledge it."""

    id: str
    workspace: str
    agent: str
    role: str
    sender: str | None
    content: str
    data: JSON
    created_at: datetime
    ack_until: datetime
    acknowledged_at: datetime | None = None


async def add(c: AsyncConnection, message: AgentMessage, *, keep: int) -> AgentMessage:
    """Idempotent by id: returns the one that is there. Of the agent's messages the newest `keep` remain."""
    known = await _get(c, message.workspace, message.agent, message.id)
    if known is not None:
        return known
    await c.execute(agent_messages.insert().values(**asdict(message)))
    mine = and_(agent_messages.c.workspace == message.workspace, agent_messages.c.agent == message.agent)
    by_age = (agent_messages.c.created_at.desc(), agent_messages.c.id.desc())
    older = select(agent_messages.c.id).where(mine).order_by(*by_age).offset(keep)
    await c.execute(agent_messages.delete().where(mine, agent_messages.c.id.in_(older)))
    return message


async def page(
    c: AsyncConnection,
    agent: Agent,
    *,
    acknowledged: bool | None = None,
    after: Place | None = None,
    limit: int,
    skip: int = 0,
) -> list[AgentMessage]:
    """Newest first; only those that are (not) acknowledged, where that is asked for."""
    query = select(agent_messages).where(
        agent_messages.c.workspace == agent.workspace, agent_messages.c.agent == agent.id
    )
    if acknowledged is not None:
        place = agent_messages.c.acknowledged_at
        query = query.where(place.is_not(None) if acknowledged else place.is_(None))
    found = await c.execute(newest_first(query, agent_messages, after, limit, time="created_at").offset(skip))
    return [_message(row) for row in found.mappings()]


async def acknowledge(c: AsyncConnection, agent: Agent, message_id: str) -> AgentMessage:
    """Returns it; again, as it was. Raises AppError NOT_FOUND, CONFLICT where it is too late."""
    message = await _get(c, agent.workspace, agent.id, message_id, to_change=True)
    if message is None:
        raise AppError(ErrorCode.NOT_FOUND, f"Agent {agent.id} has no message {message_id[:100]}.")
    if message.acknowledged_at is not None:
        return message
    now = datetime.now(UTC)
    if now > message.ack_until:
        raise AppError(
            ErrorCode.CONFLICT,
            f"Message {message.id} could be acknowledged until {message.ack_until:%Y-%m-%d %H:%M:%S} UTC "
            "(agents.message_ack_window_seconds). Send another one if it still matters.",
        )
    mine = and_(agent_messages.c.workspace == agent.workspace, agent_messages.c.id == message.id)
    await c.execute(agent_messages.update().where(mine).values(acknowledged_at=now))
    return replace(message, acknowledged_at=now)


async def _get(
    c: AsyncConnection, workspace: str, agent_id: str, message_id: str, *, to_change: bool = False
) -> AgentMessage | None:
    if not is_row_id(message_id):  # Postgres takes not every text
        return None
    query = select(agent_messages).where(
        agent_messages.c.workspace == workspace,
        agent_messages.c.agent == agent_id,
        agent_messages.c.id == message_id,
    )
    row = (await c.execute(query.with_for_update() if to_change else query)).mappings().one_or_none()
    return None if row is None else _message(row)


def _message(row: RowMapping) -> AgentMessage:
    return AgentMessage(**row)
