"""Agents: what workspaces have made of definitions."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.rows import Place, of_tenant
from shared.db.table_rows import Rows
from shared.db.tables.agents import agents
from shared.ids import new_run_id, new_thread_id
from shared.tenant import Tenant
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
    permissions: list[str] | None = None
    """Rules for its calls, beside its definition's and the settings'."""
    mcp_servers: JSON | None = None
    """Its own, by name, with their secrets."""
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


ROWS = Rows(agents, lambda **row: Agent(**{**row, "status": AgentStatus(row["status"])}), "agent")
add, get, existing, change, delete = ROWS.add, ROWS.get, ROWS.existing, ROWS.change, ROWS.delete
check_version = ROWS.check_version


async def page(
    c: AsyncConnection, tenant: Tenant, only: AgentFilter, *, after: Place | None = None, limit: int, skip: int = 0
) -> list[Agent]:
    """Newest first."""
    return await ROWS.page(c, tenant, asdict(only), after=after, limit=limit, skip=skip)


async def missing(c: AsyncConnection, tenant: Tenant, ids: Iterable[str]) -> list[str]:
    """Those of the ids, in their order, that are no agents of the tenant's."""
    wanted = list(dict.fromkeys(ids))
    query = select(agents.c.id).where(of_tenant(agents, tenant), agents.c.id.in_(wanted))
    there = set((await c.execute(query)).scalars())
    return [each for each in wanted if each not in there]


async def with_hooks_left(c: AsyncConnection, *, before: datetime, limit: int) -> list[Agent]:
    """Of all workspaces: those whose last hook run may not have been submitted since their change, before that time."""
    left = and_(agents.c.hook_run.is_not(None), agents.c.hooks.is_not(None), agents.c.updated_at < before)
    return await ROWS.all(c, select(agents).where(left).order_by(agents.c.updated_at).limit(limit))


async def with_other_hook_thread(c: AsyncConnection, agent: Agent) -> Agent:
    """Its last hook run is another one, in a thread of its own, unless somebody has seen to that already.

    Raises AppError NOT_FOUND.
    """
    thread_id = new_thread_id()
    other = {"hook_thread": thread_id, "hook_run": new_run_id(thread_id)}
    await c.execute(agents.update().where(_with_its_hook_run(agent)).values(**other))
    return await existing(c, Tenant(agent.workspace), agent.id)


async def told_hooks(c: AsyncConnection, agent: Agent) -> None:
    """Its last hook run was submitted."""
    await c.execute(agents.update().where(_with_its_hook_run(agent)).values(hooks=None))


def _with_its_hook_run(agent: Agent) -> ColumnElement[bool]:
    return and_(ROWS.at(agent.workspace, agent.id), agents.c.hook_run == agent.hook_run)
