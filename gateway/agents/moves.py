"""From one status to another: first in SQL, with the run that is to call the hooks of the agent's kind, then that run.

A gateway that dies in between leaves the run's name and its hooks in SQL, and whoever deals with the agent next submits
it, or a worker that looks for such ones (modem/hooks.py). All of an agent's hook runs are in one thread, so that hooks
are called in the order of its changes.
"""

from gateway.agents.known import announce, catalogue_of
from gateway.auth import Principal
from gateway.deps import Services
from shared.catalogue import hooks
from shared.catalogue.agents import check_hooked
from shared.channels import ChannelEventType
from shared.db import agents
from shared.db.agents import Agent, AgentStatus
from shared.errors import AppError, ErrorCode
from shared.ids import new_run_id, new_thread_id
from shared.tenant import Tenant
from shared.threads import again
from shared.threads.types import Run
from shared.types import JSON, RunStatus

ALLOWED = {
    AgentStatus.INACTIVE: {AgentStatus.ACTIVE, AgentStatus.SHUTDOWN},
    AgentStatus.ACTIVE: {AgentStatus.INACTIVE, AgentStatus.SHUTDOWN},
    AgentStatus.SHUTDOWN: set[AgentStatus](),
}
HOOKS = {
    AgentStatus.ACTIVE: ["activate"],
    AgentStatus.INACTIVE: ["deactivate"],
    AgentStatus.SHUTDOWN: ["shutdown"],
}
FAILED = (RunStatus.FAILED, RunStatus.CANCELED)


async def move(
    services: Services, caller: Principal, agent_id: str, to: AgentStatus, *, expected: int | None = None
) -> Agent:
    """The agent, then in that status; as it is where it was already, but for hooks that failed: those are retried.

    Raises AppError NOT_FOUND, CONFLICT.
    """
    catalogue = await catalogue_of(services)
    async with services.db.begin() as c:
        agent = before = await agents.existing(c, caller.tenant, agent_id, to_change=True)
        agents.check_version(agent, expected)
        if agent.status is not to:
            check_move(agent, to)
            card = catalogue.definition(agent.definition)
            values = hook_values(agent, to) if card and card.hooks else {}
            agent = await agents.change(c, agent, {"status": to, **values})
    if agent is before:
        return await _retry_hooks(services, caller, agent)
    agent = await submit_hooks(services, agent, key_id=caller.key_id)
    await announce_move(services, agent, before.status)
    return agent


def check_move(agent: Agent, to: AgentStatus) -> None:
    """Raises AppError CONFLICT."""
    if to not in ALLOWED[agent.status]:
        raise AppError(
            ErrorCode.CONFLICT,
            f"Agent {agent.id} is {agent.status}, for good: it cannot become {to}. Make a new one in its place.",
        )


def hook_values(agent: Agent, to: AgentStatus) -> JSON:
    """What the agent's row says of the run that is to call the hooks; nothing for one that was never active."""
    if agent.hook_thread is None and to is not AgentStatus.ACTIVE:
        return {}
    thread_id = agent.hook_thread or new_thread_id()
    first = [] if agent.hook_thread else ["initialize"]
    return {"hook_thread": thread_id, "hook_run": new_run_id(thread_id), "hooks": first + HOOKS[to]}


async def submit_hooks(services: Services, agent: Agent, *, key_id: str | None) -> Agent:
    """The agent's last hook run, if it is not sure that it was. Returns the agent as it is then."""
    agent, ring = await hooks.submit_hooks(services.store, services.db, agent, key_id=key_id)
    services.in_background(services.queue.ring(ring))
    return agent


async def announce_move(services: Services, agent: Agent, before: AgentStatus) -> None:
    data: JSON = {"status": agent.status, "previous_status": before, "version": agent.version}
    await announce(services, ChannelEventType.STATUS_CHANGED, agent, {**data, "hook_run_id": agent.hook_run})


async def hook_run(services: Services, agent: Agent) -> Run | None:
    """The last one; None where there is none (any more)."""
    return await services.history.run(agent.hook_run) if agent.hook_run else None


async def check_hooks(services: Services, caller: Principal, agent: Agent) -> None:
    """That its last hook run, submitted now if it was not, has succeeded. Raises AppError CONFLICT."""
    agent = await submit_hooks(services, agent, key_id=caller.key_id)
    check_hooked(agent, await hook_run(services, agent))


async def _retry_hooks(services: Services, caller: Principal, agent: Agent) -> Agent:
    agent = await submit_hooks(services, agent, key_id=caller.key_id)
    run = await hook_run(services, agent)
    if run is None or run.status not in FAILED:
        return agent
    new_id = new_run_id(run.thread_id)
    submitted = await again.retry(services.store, run, new_id, key_id=caller.key_id)
    services.in_background(services.queue.ring(submitted.ring))
    async with services.db.begin() as c:
        agent = await agents.existing(c, Tenant(agent.workspace), agent.id, to_change=True)
        return await agents.change(c, agent, {"hook_run": new_id})
