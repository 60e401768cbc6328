"""Agents: what workspaces have made of definitions."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.engine import RowMapping
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.rows import Place, newest_first, stale
from shared.db.tables.agents import agents
from shared.errors import AppError, ErrorCode
from shared.types import JSON


class AgentStatus(StrEnum):
    INACTIVE = "inactive"
    ACTIVE = "active"
    SHUTDOWN = "shutdown"
    """For good."""


@dataclass(frozen=True, slots=True)
class Agent:
    """`model`, `prompt`, `temperature` and `tools` are its definition's where they are None; `limits` that are not
    there likewise."""

    id: str
    workspace: str
    definition: str
    name: str
    created_at: datetime
    updated_at: datetime
    project: str | None = None
    description: str = ""
    status: AgentStatus = AgentStatus.INACTIVE
    model: str | None = None
    prompt: str | None = None
    temperature: float | None = None
    tools: list[str] | None = None
    limits: JSON = field(default_factory=dict)
    sandbox: JSON = field(default_factory=dict)
    knowledge: JSON = field(default_factory=dict)
    storage: JSON = field(default_factory=dict)
    metadata: JSON = field(default_factory=dict)
    hook_thread: str | None = None
    """The thread of the runs that call its definition's hooks, and the last one of them."""
    hook_run: str | None = None
    hooks: list[str] | None = None
    """What that is to call, while it is not sure that it was submitted."""
    version: int = 1


@dataclass(frozen=True, slots=True)
class AgentFilter:
    """None: whatever it is."""

    project: str | None = None
    status: AgentStatus | None = None
    definition: str | None = None


async def add(c: AsyncConnection, agent: Agent) -> Agent:
    """Idempotent by id: returns the one that is there. Raises AppError INVALID_REQUEST for a foreign project."""
    if known := await get(c, agent.workspace, agent.id):
        return known
    try:
        await c.execute(agents.insert().values(**asdict(agent)))
    except IntegrityError as error:
        raise _no_project(agent.project) from error
    return agent


async def get(c: AsyncConnection, workspace: str, agent_id: str, *, to_change: bool = False) -> Agent | None:
    """`to_change`: nobody else changes it before this transaction ends."""
    query = select(agents).where(_is(workspace, agent_id))
    row = (await c.execute(query.with_for_update() if to_change else query)).mappings().one_or_none()
    return None if row is None else _agent(row)


async def existing(c: AsyncConnection, workspace: str, agent_id: str, *, to_change: bool = False) -> Agent:
    """As `get`. Raises AppError NOT_FOUND, for an agent of another workspace too."""
    agent = await get(c, workspace, agent_id, to_change=to_change)
    if agent is None:
        raise AppError(ErrorCode.NOT_FOUND, f"There is no agent {agent_id[:100]}.")
    return agent


async def page(
    c: AsyncConnection, workspace: str, only: AgentFilter, *, after: Place | None = None, limit: int, skip: int = 0
) -> list[Agent]:
    """Newest first."""
    wanted = {name: value for name, value in asdict(only).items() if value is not None}
    query = select(agents).where(
        agents.c.workspace == workspace, *(agents.c[name] == value for name, value in wanted.items())
    )
    found = await c.execute(newest_first(query, agents, after, limit, time="created_at").offset(skip))
    return [_agent(row) for row in found.mappings()]


async def change(c: AsyncConnection, agent: Agent, values: Mapping[str, Any], *, expected: int | None = None) -> Agent:
    """`agent` as read in this transaction, to be changed. Returns it with a new version.

    Raises AppError CONFLICT where its version is not the expected one, INVALID_REQUEST for a foreign project.
    """
    check_version(agent, expected)
    changed = {**values, "version": agent.version + 1, "updated_at": datetime.now(UTC)}
    try:
        query = agents.update().where(_is(agent.workspace, agent.id)).values(**changed).returning(agents)
        return _agent((await c.execute(query)).mappings().one())
    except IntegrityError as error:
        raise _no_project(values.get("project")) from error


async def told_hooks(c: AsyncConnection, agent: Agent) -> None:
    """Its last hook run was submitted."""
    mine = and_(_is(agent.workspace, agent.id), agents.c.hook_run == agent.hook_run)
    await c.execute(agents.update().where(mine).values(hooks=None))


async def delete(c: AsyncConnection, agent: Agent, *, expected: int | None = None) -> None:
    """With its contexts and messages. Raises AppError CONFLICT where its version is not the expected one."""
    check_version(agent, expected)
    await c.execute(agents.delete().where(_is(agent.workspace, agent.id)))


def check_version(agent: Agent, expected: int | None) -> None:
    """Raises AppError CONFLICT where it is another one than whoever changes the agent has read."""
    if expected not in (None, agent.version):
        raise stale(expected, agent.version)


def _is(workspace: str, agent_id: str) -> Any:
    return and_(agents.c.workspace == workspace, agents.c.id == agent_id)


def _agent(row: RowMapping) -> Agent:
    return Agent(**{**row, "status": AgentStatus(row["status"])})


def _no_project(project: str | None) -> AppError:
    return AppError(ErrorCode.INVALID_REQUEST, f"There is no project {project} in this workspace.")
